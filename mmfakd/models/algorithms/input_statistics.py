# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether a batch has been normalised as its model is used to, by its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmfakd.models.distillers.valid_area import padded_images

# Of three standard deviations around the mean, an image on that scale fills more than
# one part ...
_LEAST = 0.05
# ... and less than so many.
_MOST = 20.0
# Share of values below zero that no image has, whatever its brightness was changed by.
_NEGATIVE = 0.2
# Brightest pixel of a batch above which nobody has divided it by 255.
RAW = 16.0
# They take images as they are, and their configs say so by saying nothing.
_TAKE_RAW = ('YOLOX',)


@dataclass
class InputStatistics:
    """A batch as it enters a model, padding aside.

    Args:
        mean (list[float]): Mean of each channel.
        std (list[float]): Standard deviation of each channel.
        least (float): The smallest value.
        most (float): The largest.
        differs (bool): Whether its images differ.
    """

    mean: list[float]
    std: list[float]
    least: float
    most: float
    differs: bool

    def as_dict(self) -> dict[str, Any]:
        """Describe it for a file.

        Returns:
            dict: Mean, standard deviation, and range.
        """
        return dict(mean=self.mean, std=self.std, range=[self.least, self.most])


def pixels_of(inputs: Tensor, data_samples: Sequence[Any] | None) -> Tensor:
    """Take the pixels of images out of a batch.

    Args:
        inputs (Tensor): The batch (N, C, H, W).
        data_samples (Sequence, optional): Its N data samples; where mmdet's
            preprocessor padded the images, their ``img_shape`` tells by how much.

    Returns:
        Tensor: The pixels (C, P), in float32.
    """
    padded = padded_images(data_samples, *inputs.shape[-2:])
    # Only preprocessors that pad make it certain.
    sizes = {i: size for i, size, certain in padded if certain}
    images = []
    for i, image in enumerate(inputs.detach().float()):
        height, width = sizes.get(i, inputs.shape[-2:])
        images.append(image[:, :height, :width].flatten(1))
    return torch.cat(images, dim=1)


def input_statistics(
    inputs: Tensor, data_samples: Sequence[Any] | None
) -> InputStatistics | None:
    """Measure a batch.

    Args:
        inputs (Tensor): The batch (N, C, H, W).
        data_samples (Sequence, optional): Its N data samples.

    Returns:
        InputStatistics | None: What it is like; None where it is no batch of images.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or not inputs.numel():
        return None
    pixels = pixels_of(inputs, data_samples)
    return InputStatistics(
        mean=pixels.mean(1).tolist(),
        std=pixels.std(1, unbiased=False).tolist(),
        least=float(pixels.min()),
        most=float(pixels.max()),
        differs=len(inputs) > 1 and bool((inputs != inputs[:1]).any()),
    )


def judge_told(
    inputs: Tensor, data_samples: Sequence[Any] | None, mean: Tensor, std: Tensor
) -> str:
    """Say what is wrong with ``teacher_preprocessor``, by what it makes of a batch.

    Args:
        inputs (Tensor): The batch as the teacher gets it, (N, C, H, W).
        data_samples (Sequence, optional): Its N data samples.
        mean (Tensor): What was given, one number or C.
        std (Tensor): Likewise.

    Returns:
        str: As :func:`judge_input`.
    """
    pixels = pixels_of(inputs, data_samples)
    if not torch.isfinite(pixels).all() or (pixels == pixels[:, :1]).all():
        # The student's batch says it, or is none of images.
        return ''
    means, stds = (v.to(pixels).expand(len(pixels)) for v in (mean, std))
    return _judge_normalised(pixels, means, stds, 'teacher', '`teacher_preprocessor`')


def judge_input(
    inputs: Tensor, data_samples: Sequence[Any] | None, model: BaseModel, role: str
) -> str:
    r"""Say what is wrong with the normalisation of a batch, if anything is.

    With the preprocessor's mean :math:`\mu` and deviation :math:`\sigma`, what came in
    was :math:`x = y \sigma + \mu`. If that is on another scale than
    :math:`\mu + 2 \sigma`, or negative, then these numbers are not those of the images.

    Args:
        inputs (Tensor): The batch as the model gets it, (N, C, H, W).
        data_samples (Sequence, optional): Its N data samples.
        model (BaseModel): Whose preprocessor says what is normalised.
        role (str): ``'student'`` or ``'teacher'``.

    Returns:
        str: Cause and cure, or '' where nothing is wrong.
    """
    pixels = pixels_of(inputs, data_samples)
    low, high = float(pixels.min()), float(pixels.max())
    if not torch.isfinite(pixels).all():
        return (
            f'the batch that the {role} gets is not finite. Look at the pipeline and '
            'the images.'
        )
    if (pixels == pixels[:, :1]).all():
        # No image, but something to try a model with.
        return ''
    found = f'it has values from {low:.3g} to {high:.3g}'
    numbers = _normalisation(model.data_preprocessor, inputs)
    if numbers is None:
        raw = low >= -1 and high > RAW and not _takes_raw(model)
        return raw * (
            f'the batch that the {role} gets is not normalised: {found}, and its '
            'data_preprocessor has no `mean` and `std`. Give those that its weights '
            'were trained with (in mmpretrain `data_preprocessor` stands at the top '
            'level of a config). If it is meant to take images as they are, say so: '
            'mean=[0, 0, 0], std=[1, 1, 1].'
        )
    return _judge_normalised(pixels, *numbers, role)


def _judge_normalised(
    pixels: Tensor,
    mean: Tensor,
    std: Tensor,
    role: str,
    owner: str = 'its data_preprocessor',
) -> str:
    """What is wrong with pixels (C, P) of which mean and deviation are known."""
    if not mean.any() and (std == 1).all():
        # The way to say that images are taken as they are.
        return ''
    low, high = float(pixels.min()), float(pixels.max())
    told = (
        f'it has values from {low:.3g} to {high:.3g}, and {owner} has '
        f'mean={_listed(mean)}, std={_listed(std)}'
    )
    before = pixels * std[:, None] + mean[:, None]
    scale = float((mean.abs() + 2 * std).max())
    largest = float(before.abs().max())
    unit = low >= 0 and high <= 1
    if largest > _MOST * scale or (unit and mean.min() > 0.2 * std.max()):
        return (
            f'the batch that the {role} gets is not normalised by these numbers: '
            f'{told}. Either it has not passed the preprocessor, or mean and std are '
            'meant for images in 0..1 and the images are in 0..255: give both the same '
            'scale.'
        )
    if largest <= _LEAST * scale and before.min() >= -0.01:
        return (
            f'the batch that the {role} gets was in 0..1 before it was normalised: '
            f'{told}, which are meant for 0..255. Take the division by 255 out of the '
            'pipeline, or divide mean and std by 255 as well.'
        )
    negative = float((before < -0.02 * scale).float().mean())
    if largest <= _LEAST * scale or negative > _NEGATIVE:
        return (
            f'the batch that the {role} gets has been normalised twice: {told}. Before '
            f'that the values were {float(before.min()):.3g} to '
            f'{float(before.max()):.3g}. Take `Normalize` out of the pipeline, or mean '
            'and std out of the data_preprocessor.'
        )
    return ''


def _normalisation(preprocessor: Any, inputs: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and std for each channel, in the order of the batch."""
    found = []
    for name in ('mean', 'std'):
        given = getattr(preprocessor, name, None)
        if given is None:
            return None
        value = torch.as_tensor(given, dtype=torch.float32, device=inputs.device)
        if value.numel() not in (1, inputs.size(1)):
            return None
        found.append(value.flatten().expand(inputs.size(1)))
    return found[0], found[1]


def _takes_raw(model: nn.Module) -> bool:
    """Whether a model is known for images as they are, or normalises them itself."""
    kinds = (module for module in model.modules() if module._parameters)
    first = next(kinds, None)
    names = ' '.join(base.__name__ for base in type(model).__mro__)
    return isinstance(first, _NormBase) or any(name in names for name in _TAKE_RAW)


def _listed(numbers: Tensor) -> list[float]:
    return [round(value, 3) for value in numbers.tolist()]
