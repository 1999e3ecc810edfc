# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The student's batch in the teacher's normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn


class TeacherInput(nn.Module):
    r"""Re-normalise the student's final batch for the teacher.

    Mixing and resizing of batches are random, so a teacher cannot run its own
    preprocessor: it would see other images than the student. It gets the student's
    batch instead, through one affine map per channel,

    .. math::
        x_T = \frac{x_S \sigma_S + \mu_S - \mu_T}{\sigma_T}
            = a\, x_S + b,

    after a flip of the channels where one of the two swaps them and the other does
    not, if there are three. Pixels that mmdet's preprocessor padded get the teacher's
    padding value, as padding comes after normalisation. The size of the batch stays
    the student's, whatever the teacher pads to: its features would not cover the
    student's otherwise.

    A teacher whose preprocessor says nothing (mmpretrain's default, where a config
    keeps it at its top level) is taken to share the student's. mmdet's always stands
    in the model: without ``mean`` it means unnormalised images, as YOLOX takes them.

    Args:
        student (nn.Module): The student's data preprocessor, which made the batch.
        teacher (nn.Module | dict): The teacher's data preprocessor, or a dict with
            any of ``mean``, ``std``, ``to_rgb`` (or ``bgr_to_rgb``) and
            ``pad_value``; what it leaves out is as the student's.

    Shapes:
        - Input: (N, C, H, W), normalised for the student.
        - Output: the same shape, normalised for the teacher.

    Raises:
        ValueError: If the numbers of channels of the two normalisations, or of a
            normalisation and a batch, differ.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | dict) -> None:
        super().__init__()
        source: dict[str, Any] = {**_RAW, **_normalisation(student)}
        own = _normalisation(teacher)
        self.flip: bool = own.get('swap', source['swap']) != source['swap']
        for name in ('mean', 'std'):
            # Preprocessors swap red and blue of three channels, leave others alone.
            if self.flip and source[name].numel() == 3:
                source[name] = source[name].flip(0)
        target = {**source, **own}
        mean, std = target['mean'], target['std']
        channels = {v.numel() for v in (source['mean'], source['std'], mean, std)}
        if len(channels - {1}) > 1:
            raise ValueError(
                f"the student's normalisation has {source['mean'].numel()} channels, "
                f"the teacher's {mean.numel()}: they cannot see the same image. "
                'Give `teacher_preprocessor=dict(mean=..., std=..., to_rgb=...)` for '
                "the student's channels."
            )
        self.pad_value: float = target['pad_value']
        self.scale: Tensor | None
        self.shift: Tensor | None
        self.register_buffer('scale', None, persistent=False)
        self.register_buffer('shift', None, persistent=False)
        scale, shift = source['std'] / std, (source['mean'] - mean) / std
        if not torch.allclose(scale, torch.ones(1)) or shift.abs().gt(1e-6).any():
            self.scale, self.shift = scale.view(-1, 1, 1), shift.view(-1, 1, 1)
        self._pads_anew = (
            self.scale is not None or self.pad_value != source['pad_value']
        )

    @property
    def is_identity(self) -> bool:
        """Whether the teacher sees the student's batch as it is."""
        return not self.flip and not self._pads_anew

    def forward(self, inputs: Tensor, data_samples: Sequence[Any] | None) -> Tensor:
        """Map a batch.

        Args:
            inputs (Tensor): The student's batch, (N, C, H, W).
            data_samples (Sequence, optional): Its N data samples. Where mmdet's
                preprocessor padded the images, their ``img_shape`` tells which
                pixels are real.

        Returns:
            Tensor: The teacher's batch, (N, C, H, W).

        Raises:
            ValueError: If the batch has another number of channels than the
                normalisations.
        """
        if self.is_identity:
            return inputs
        outputs = inputs.flip(1) if self.flip and inputs.size(1) == 3 else inputs
        if self.scale is not None and self.shift is not None:
            if len(self.shift) not in (1, inputs.size(1)):
                raise ValueError(
                    f'the batch has {inputs.size(1)} channels, the normalisation of '
                    f'student and teacher {len(self.shift)}. Give '
                    '`teacher_preprocessor=dict(mean=..., std=...)` with one value or '
                    'one for each channel of the batch.'
                )
            outputs = outputs * self.scale + self.shift
        if not self._pads_anew:
            return outputs
        if outputs is inputs:
            outputs = inputs.clone()
        for output, sample in zip(outputs, data_samples or ()):
            # Only mmdet's preprocessor, which writes `batch_input_shape`, keeps
            # `img_shape` true to the batch.
            if 'batch_input_shape' in getattr(sample, 'metainfo', {}):
                height, width = sample.img_shape[:2]
                output[..., height:, :] = self.pad_value
                output[..., width:] = self.pad_value
        return outputs

    def extra_repr(self) -> str:
        """Describe the map.

        Returns:
            str: Scale, shift and flip.
        """
        if self.scale is None or self.shift is None:
            return f'identity, flip={self.flip}'
        scale, shift = (
            [float(f'{value:.6g}') for value in buffer.flatten().tolist()]
            for buffer in (self.scale, self.shift)
        )
        return f'scale={scale}, shift={shift}, flip={self.flip}'


# An image as it is, of any number of channels.
_RAW: dict[str, Any] = dict(
    mean=torch.zeros(1), std=torch.ones(1), swap=False, pad_value=0.0
)
_SWAPS = ('to_rgb', '_channel_conversion', 'bgr_to_rgb', 'rgb_to_bgr')


def _normalisation(preprocessor: nn.Module | dict) -> dict[str, Any]:
    """Read what a preprocessor of mmpretrain's or mmengine's class says."""
    names = ('mean', 'std', 'pad_value', *_SWAPS)
    given: Any = preprocessor
    if not isinstance(preprocessor, dict):
        given = {name: getattr(preprocessor, name, None) for name in names}
    given = {name: given[name] for name in names if given.get(name) is not None}
    found: dict[str, Any] = {
        name: torch.as_tensor(given[name]).float().flatten().cpu()
        for name in ('mean', 'std')
        if name in given
    }
    swaps = [given[name] for name in _SWAPS if name in given]
    if swaps:
        found['swap'] = any(swaps)
    if 'pad_value' in given:
        found['pad_value'] = float(given['pad_value'])
    if isinstance(preprocessor, dict) or 'mean' in found:
        return found
    if isinstance(preprocessor, ImgDataPreprocessor) or found.get('swap'):
        return dict(_RAW, **found)
    return {}
