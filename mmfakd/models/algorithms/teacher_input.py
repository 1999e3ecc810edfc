# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The student's batch in the teacher's normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
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
    not. Padded pixels get the teacher's padding value, as they are padded after
    normalisation.

    Args:
        student (nn.Module): The student's data preprocessor, which made the batch.
        teacher (nn.Module | dict): The teacher's data preprocessor, or a dict with
            any of ``mean``, ``std``, ``to_rgb`` (or ``bgr_to_rgb``) and
            ``pad_value``.

    Shapes:
        - Input: (N, C, H, W), normalised for the student.
        - Output: the same shape, normalised for the teacher.

    Raises:
        ValueError: If the numbers of channels of the two normalisations differ.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | dict) -> None:
        super().__init__()
        mean, std, flip = _normalisation(student)
        teacher_mean, teacher_std, teacher_flip = _normalisation(teacher)
        self.flip = False
        self.pad_value = float(_read(teacher, 'pad_value') or 0)
        self.scale: Tensor | None
        self.shift: Tensor | None
        self.register_buffer('scale', None, persistent=False)
        self.register_buffer('shift', None, persistent=False)
        if teacher_mean is None or teacher_std is None:
            # Without explicit values the teacher is taken to share the student's.
            return
        if mean is None or std is None:
            mean, std = torch.zeros(1), torch.ones(1)
        if mean.numel() > 1 and mean.numel() != teacher_mean.numel():
            raise ValueError(
                f"the student's normalisation has {mean.numel()} channels, the "
                f"teacher's {teacher_mean.numel()}: they cannot see the same image. "
                'Give `teacher_preprocessor=dict(mean=..., std=..., to_rgb=...)` for '
                "the student's channels."
            )
        self.flip = flip != teacher_flip
        if self.flip:
            mean, std = mean.flip(0), std.flip(0)
        scale = std / teacher_std
        shift = (mean - teacher_mean) / teacher_std
        if not (torch.allclose(scale, torch.ones(1)) and not shift.abs().gt(1e-6).any()):
            self.scale = scale.view(-1, 1, 1)
            self.shift = shift.view(-1, 1, 1)

    @property
    def is_identity(self) -> bool:
        """Whether the teacher sees the student's batch as it is."""
        return self.scale is None and not self.flip

    def forward(self, inputs: Tensor, data_samples: Sequence[Any] | None) -> Tensor:
        """Map a batch.

        Args:
            inputs (Tensor): The student's batch, (N, C, H, W).
            data_samples (Sequence, optional): Its N data samples. Where mmdet's
                preprocessor padded the images, their ``img_shape`` tells which
                pixels are real.

        Returns:
            Tensor: The teacher's batch, (N, C, H, W).
        """
        if self.is_identity:
            return inputs
        outputs = inputs.flip(1) if self.flip else inputs
        if self.scale is not None:
            outputs = outputs * self.scale + self.shift
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
        scale, shift = self.scale.flatten().tolist(), self.shift.flatten().tolist()
        return f'scale={scale}, shift={shift}, flip={self.flip}'


def _read(preprocessor: nn.Module | dict, name: str) -> Any:
    if isinstance(preprocessor, dict):
        return preprocessor.get(name)
    return getattr(preprocessor, name, None)


def _normalisation(
    preprocessor: nn.Module | dict,
) -> tuple[Tensor | None, Tensor | None, bool]:
    """Read mean, std and the channel swap of mmpretrain's or mmengine's class."""
    mean, std = _read(preprocessor, 'mean'), _read(preprocessor, 'std')
    swaps = ('to_rgb', '_channel_conversion', 'bgr_to_rgb', 'rgb_to_bgr')
    swap = any(bool(_read(preprocessor, name)) for name in swaps)
    if mean is None or std is None:
        return None, None, swap
    as_vector = [torch.as_tensor(value).float().flatten().cpu() for value in (mean, std)]
    return as_vector[0], as_vector[1], swap


__all__ = ['TeacherInput']
