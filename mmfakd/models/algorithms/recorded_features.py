# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What was recorded for each distillation loss, and whether it is worth comparing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor

from mmfakd.models.distillers.any_distiller import compared_levels
from mmfakd.models.distillers.level import Level

# Part of the largest value by which the rest may differ through rounding.
_ROUNDING = 1e-6


@dataclass
class Recorded:
    """One feature of a loss.

    Args:
        layer (str): Name for messages.
        source (str): The module it is of, '' where it is of none.
        tensor (Tensor): The feature.
        is_weight (bool): Whether it is a weight of the model, no feature of an image.
    """

    layer: str
    source: str
    tensor: Tensor
    is_weight: bool = False


@dataclass
class RecordedPair:
    """What a loss gets of student and teacher.

    Args:
        student (list[Recorded]): Of the student.
        teacher (list[Recorded]): Of the teacher.
    """

    student: list[Recorded] = field(default_factory=list)
    teacher: list[Recorded] = field(default_factory=list)

    def side(self, from_student: bool) -> list[Recorded]:
        """Choose one of the two.

        Args:
            from_student (bool): Which.

        Returns:
            list[Recorded]: Its features.
        """
        return self.student if from_student else self.teacher


def several_calls(distiller: ConfigurableDistiller) -> list[str]:
    """Tell of layers that ran several times, where nobody has said which call counts.

    Args:
        distiller (ConfigurableDistiller): The distiller, after both models ran.

    Returns:
        list[str]: A sentence or two for each.
    """
    told = {}
    for level in chain(*compared_levels(distiller).values()):
        calls = len(level.recorder_of(distiller).data_buffer)
        if calls > 1 and level.record_idx is None:
            role = 'student' if level.from_student else 'teacher'
            told[role, level.recorder] = (
                f'The layer {level.recorder!r} of the {role} runs {calls} times in a '
                'forward pass, and what its first call returns is distilled. Say which '
                f'it is to be: `record_idx`, from 0 to {calls - 1}; or take the layer '
                'around it.'
            )
    return list(told.values())


def recorded_features(distiller: ConfigurableDistiller) -> dict[str, RecordedPair]:
    """Read what was recorded, before any connector.

    Args:
        distiller (ConfigurableDistiller): The distiller, after both models ran.

    Returns:
        dict[str, RecordedPair]: Name of the loss -> its features.
    """
    found: dict[str, RecordedPair] = {}
    for name in distiller.loss_forward_mappings:
        pair = found[name] = RecordedPair()
        for level in compared_levels(distiller)[name]:
            pair.side(level.from_student).extend(_of_mapping(distiller, level))
    for role in ('student', 'teacher'):
        levels = getattr(distiller, f'{role}_levels', ())
        features = [f for level in levels for f in _of_level(distiller, level)]
        for i, feature in enumerate(features):
            pair = found.setdefault(f'loss_level{i}', RecordedPair())
            getattr(pair, role).append(feature)
    return found


def describe_void(tensor: Tensor, batch: int, differs: bool) -> str:
    """Say why a feature tells nothing, if so.

    Args:
        tensor (Tensor): The feature.
        batch (int): Number of images.
        differs (bool): Whether these differ.

    Returns:
        str: What it is, '' where it is fine.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return ''
    values = tensor.detach()
    if not values.isfinite().all():
        count = int((~values.isfinite()).sum())
        return f'is not finite ({count:,} of {values.numel():,} values)'
    values = values.float()
    largest = values.abs().max()
    if not largest:
        # A single value may well be zero, one behind a ReLU above all.
        return 'is zero everywhere' if values.numel() > batch else ''
    slack = _ROUNDING * largest
    if values.numel() > batch and values.max() - values.min() <= slack:
        return f'is constant ({float(values.flatten()[0]):.4g} everywhere)'
    if values.dim() < 2 or len(values) != batch:
        return ''
    if differs and torch.equal(values, values[:1].expand_as(values)):
        return 'is the same for all images, although these differ'
    channels = values.flatten(2) if values.dim() > 2 else values[..., None]
    if batch > 1 or values.dim() != 4 or channels.size(2) == 1:
        return ''
    constant = (channels - channels[..., :1]).abs().max() <= slack
    return 'is constant in each of its channels' if constant else ''


def forgets_images(tensor: Tensor, batch: int) -> bool:
    """Tell whether a feature differs between images by rounding alone.

    Deep networks at random do so: doubtful, yet no fault.

    Args:
        tensor (Tensor): The feature.
        batch (int): Number of images.

    Returns:
        bool: Whether it does.
    """
    if not tensor.is_floating_point() or tensor.dim() < 2 or len(tensor) != batch:
        return False
    values = tensor.detach().float()
    difference = (values - values[:1]).abs().max()
    return bool(0 < difference <= _ROUNDING * values.abs().max())


def _of_level(distiller: ConfigurableDistiller, level: Level) -> Iterator[Recorded]:
    recorder = level.recorder_of(distiller)
    # Its connector would run twice, and update its statistics.
    for layer, tensor in replace(level, connector=None).read_maps(distiller):
        yield _recorded(recorder, layer, tensor)


def _of_mapping(distiller: ConfigurableDistiller, level: Level) -> Iterator[Recorded]:
    recorder = level.recorder_of(distiller)
    record = None
    # What is not there, mmrazor tells when it computes the loss.
    with suppress(Exception):
        record = recorder.get_record_data(level.call, level.data_idx)
    tensors = list(_tensors(record))
    layer = getattr(recorder, 'source', level.recorder)
    if level.data_idx is not None:
        layer += f'[{level.data_idx}]'
    for i, tensor in enumerate(tensors):
        part = f'[{i}]' if len(tensors) > 1 else ''
        yield _recorded(recorder, f'{layer}{part}', tensor)


def _recorded(recorder: Any, layer: str, tensor: Tensor) -> Recorded:
    kind = type(recorder).__name__
    source = getattr(recorder, 'source', '')
    is_weight = kind == 'ParameterRecorder'
    return Recorded(layer, source if 'Module' in kind else '', tensor, is_weight)


def _tensors(record: Any) -> Iterator[Tensor]:
    if isinstance(record, Tensor):
        # Labels and indices are no features.
        if record.is_floating_point():
            yield record
    elif isinstance(record, Mapping):
        for part in record.values():
            yield from _tensors(part)
    elif isinstance(record, (tuple, list)):
        for part in record:
            yield from _tensors(part)
