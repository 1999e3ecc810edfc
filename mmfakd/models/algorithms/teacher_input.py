# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The student's batch in the teacher's normalisation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfakd.models.distillers.valid_area import padded_images

from .normalisation import (
    RAW,
    choose_channels,
    pick_channels,
    read_normalisation,
    same_preprocessors,
)

_NUMBERS = ('mean', 'std')


class TeacherInput(nn.Module):
    r"""Re-normalise the student's final batch for the teacher.

    Mixing and resizing of batches are random, so a teacher cannot run its own
    preprocessor: it would see other images than the student. It gets the student's
    batch instead, through one affine map per channel,

    .. math::
        x_T = \frac{x_S \sigma_S + \mu_S - \mu_T}{\sigma_T}
            = a\, x_S + b,

    after a flip of the channels where one of the two swaps them and the other does
    not, if there are three. Padded pixels get the teacher's padding value, as padding
    comes after normalisation. The size of the batch stays
    the student's, whatever the teacher pads to: its features would not cover the
    student's otherwise.

    A teacher whose preprocessor says nothing (mmpretrain's default, where a config
    keeps it at its top level) is taken to share the student's. mmdet's always stands
    in the model: without ``mean`` it means unnormalised images, as YOLOX takes them.

    With ``channels`` the teacher gets these channels of the batch in this order, for
    example three of a four-channel student's; what the dict does not say of mean and
    std is then as the teacher's own preprocessor has it.

    Args:
        student (nn.Module): The student's data preprocessor, which made the batch.
        teacher (nn.Module | dict): The teacher's data preprocessor, or a dict with
            any of ``mean``, ``std``, ``to_rgb`` (or ``bgr_to_rgb``),
            ``pad_value`` and ``channels``; what it leaves out is as the student's.
        own (nn.Module, optional): The teacher's own preprocessor beside a dict.

    Shapes:
        - Input: (N, C, H, W), normalised for the student.
        - Output: the same shape, or with as many channels as ``channels`` has,
          normalised for the teacher.

    Raises:
        ValueError: If the numbers of channels of the two normalisations, or of a
            normalisation and a batch, differ, a channel does not exist, or nothing
            can be read of a preprocessor.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | dict,
        own: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.channels: list[int] | None = None
        source, said = self._read(student, teacher, own)
        # What a dict tells to normalise by, in the order of the teacher's batch.
        self.told: tuple[Tensor, Tensor] | None = None
        if isinstance(teacher, Mapping) and None not in map(teacher.get, _NUMBERS):
            self.told = said['mean'], said['std']
        self.flip: bool = said.get('swap', source['swap']) != source['swap']
        for name in ('mean', 'std'):
            # Preprocessors swap red and blue of three channels, leave others alone.
            if self.flip and source[name].numel() == 3:
                source[name] = source[name].flip(0)
        target = {**source, **said}
        mean, std = target['mean'], target['std']
        channels = {v.numel() for v in (source['mean'], source['std'], mean, std)}
        if len(channels - {1}) > 1:
            raise ValueError(
                f"the student's normalisation has {source['mean'].numel()} channels, "
                f"the teacher's {mean.numel()}: they cannot see the same image. "
                'Give `teacher_preprocessor=dict(mean=..., std=..., to_rgb=...)` for '
                "the student's channels, or choose some of them for the teacher, "
                '`teacher_preprocessor=dict(channels=[0, 1, 2])`.'
            )
        self.pad_value: float = target['pad_value']
        self._source_pad: float = source['pad_value']
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
        return not self.flip and not self._pads_anew and self.channels is None

    def _read(
        self,
        student: nn.Module,
        teacher: nn.Module | dict,
        own: nn.Module | None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the student's batch is like, and what is said of the teacher's."""
        if isinstance(teacher, Mapping):
            said = read_normalisation(teacher)
        elif same_preprocessors(student, teacher):
            return dict(RAW), {}
        else:
            said = read_normalisation(teacher)
        picked = isinstance(teacher, Mapping) and teacher.get('channels') is not None
        if not said and not picked:
            return dict(RAW), {}
        source: dict[str, Any] = {**RAW, **read_normalisation(student, 'student')}
        if not picked or not isinstance(teacher, Mapping):
            return source, said
        self.channels = pick_channels(teacher['channels'])
        if 'swap' in said:
            raise ValueError(
                'teacher_preprocessor has both `channels` and an order of colours '
                '(`to_rgb`). `channels` is the order in which the teacher gets them: '
                'for one of the other order give channels=[2, 1, 0].'
            )
        count = max(source['mean'].numel(), source['std'].numel())
        if count > 1:
            self._check_channels(count)
        others = {} if own is None else read_normalisation(own)
        # Preprocessors swap three channels and no others.
        swapped = source['swap'] and count in (1, 3)
        if others.pop('swap', swapped) != swapped and len(set(self.channels)) > 1:
            print_log(
                f'teacher_preprocessor: the teacher gets the channels {self.channels} '
                "of the student's batch in this order. Its own preprocessor swaps red "
                f"and blue of what is loaded ({not swapped}), the student's "
                f'({swapped}): if these channels are loaded as BGR, reverse them.',
                logger='current',
                level=logging.WARNING,
            )
        for name in ('mean', 'std'):
            if source[name].numel() > 1:
                source[name] = source[name][self.channels]
        return source, {**others, **said}

    def _check_channels(self, count: int) -> None:
        if self.channels is not None and max(self.channels) >= count:
            raise ValueError(
                f'teacher_preprocessor: channels={self.channels}, but the images of '
                f'the student have {count} channel(s); expected indices from 0 to '
                f'{count - 1}.'
            )

    def forward(self, inputs: Tensor, data_samples: Any) -> Tensor:
        """Map a batch.

        Args:
            inputs (Tensor): The student's batch, (N, C, H, W).
            data_samples (Sequence | Mapping, optional): Its N data samples. Their
                ``img_shape`` tells which pixels are real, where the preprocessor
                padded them.

        Returns:
            Tensor: The teacher's batch, (N, C, H, W).

        Raises:
            ValueError: If the batch has another number of channels than the
                normalisations.
        """
        if self.is_identity:
            return inputs
        if self.channels is not None:
            self._check_channels(inputs.size(1))
            picked = inputs[:, self.channels]
        else:
            picked = inputs
        outputs = picked.flip(1) if self.flip and picked.size(1) == 3 else picked
        if self.scale is not None and self.shift is not None:
            if len(self.shift) not in (1, outputs.size(1)):
                self._refuse(outputs.size(1), len(self.shift))
            outputs = outputs * self.scale + self.shift
        if not self._pads_anew:
            return outputs
        if outputs is inputs:
            outputs = inputs.clone()
        size = inputs.shape[-2:]
        for i, (height, width), certain in padded_images(data_samples, *size):
            below, beside = slice(height, None), slice(width, None)
            for part in ((..., below, slice(None)), (..., beside)):
                padding = outputs[i][part]
                if certain:
                    padding.fill_(self.pad_value)
                elif padding.numel():
                    # Without a look at the number itself nothing waits for a device.
                    is_padding = (inputs[i][part] == self._source_pad).all()
                    kept = torch.where(is_padding, self.pad_value, padding)
                    padding.copy_(kept)
        return outputs

    def _refuse(self, given: int, wanted: int) -> NoReturn:
        """Say how a batch comes to the number of channels of a normalisation."""
        numbers = (
            '`mean=..., std=...` in it, with one value or one for each channel of the '
            'batch'
        )
        picked = None if self.channels is not None else choose_channels(given, wanted)
        cure = f'Give `teacher_preprocessor=dict(...)` with {numbers}.'
        if picked is not None:
            cure = (
                f'For a teacher that takes {wanted} channels, give '
                f'`teacher_preprocessor=dict(channels={picked})`. For one that takes '
                f'{given}, give `teacher_preprocessor=dict(...)` with {numbers}.'
            )
        raise ValueError(
            f'the batch has {given} channel(s), the normalisation of student and '
            f'teacher {wanted}. {cure}'
        )

    def extra_repr(self) -> str:
        """Describe the map.

        Returns:
            str: Scale, shift, flip and channels.
        """
        if self.channels is not None:
            return f'channels={self.channels}, {self._affine()}'
        return self._affine()

    def _affine(self) -> str:
        if self.scale is None or self.shift is None:
            return f'identity, flip={self.flip}'
        scale, shift = (
            [float(f'{value:.6g}') for value in buffer.flatten().tolist()]
            for buffer in (self.scale, self.shift)
        )
        return f'scale={scale}, shift={shift}, flip={self.flip}'
