# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The maps that a distillation compares, of a few fixed images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from mmfakd.datasets.random_state import same_random_state
from mmfakd.models.algorithms import FeatureDistill
from mmfakd.models.algorithms.recorded_features import recorded_features
from mmfakd.models.algorithms.run_mode import evaluation
from mmfakd.models.algorithms.unlabelled_run import UnlabelledRun
from mmfakd.models.distillers.any_distiller import (
    clear_records,
    compared_levels,
    compared_pairs,
)
from mmfakd.models.distillers.attach_recorders import attach_recorders
from mmfakd.models.layers import FrequencyAttention
from mmfakd.ops.maps import as_map

from .spectra import band_amplitudes, band_gaps, band_magnitudes


@dataclass
class LevelMaps:
    """What one distillation loss compares.

    Args:
        name (str): Name of the loss, such as ``'loss_level0'``.
        layer (str): The student's layer.
        student (Tensor): What that yields, (N, Cs, H, W), on the CPU as all here.
        prediction (Tensor): What is predicted of it, (N, Cp, H', W').
        teacher (Tensor): The teacher's feature, (N, Ct, H'', W'').
        filter (FrequencyAttention, optional): What learns by frequency in between.
    """

    name: str
    layer: str
    student: Tensor
    prediction: Tensor
    teacher: Tensor
    filter: FrequencyAttention | None

    @property
    def title(self) -> str:
        """Short name (str), and the student's layer."""
        return f'{self.name.replace("loss_", "")}: {self.layer}'

    @property
    def comparable(self) -> bool:
        """Whether prediction and teacher have one shape (bool)."""
        return self.prediction.shape == self.teacher.shape

    @property
    def is_map(self) -> bool:
        """Whether the teacher's feature has more than one pixel (bool)."""
        return tuple(self.teacher.shape[-2:]) != (1, 1)

    def gaps(self) -> dict[str, float]:
        """Measure how far the prediction is from the teacher's feature.

        Returns:
            dict[str, float]: Band -> gap; none where they cannot be compared.
        """
        return band_gaps(self.prediction, self.teacher) if self.comparable else {}

    def scalars(self) -> dict[str, float]:
        """Describe the level in numbers.

        Returns:
            dict[str, float]: ``student_low`` and so on, amplitudes of student,
            prediction and teacher by band; ``gap_low`` and so on; ``filter_low`` and
            so on, the filter's magnitude, where there is one.
        """
        measured = {
            role: band_amplitudes(getattr(self, role))
            for role in ('student', 'prediction', 'teacher')
        }
        measured['gap'] = self.gaps()
        if self.filter is not None:
            size = self.prediction.shape[-2:]
            measured['filter'] = band_magnitudes(self.filter, size)
        return {
            f'{what}_{band}': value
            for what, bands in measured.items()
            for band, value in bands.items()
        }


class FixedImages:
    """A few images, the same whenever they are looked at.

    Args:
        model (BaseAlgorithm): The distillation: a ``FeatureDistill``, or one of
            mmrazor's, whose images need labels.
        samples (dict): A batch as a data loader gives it.
    """

    def __init__(self, model: Any, samples: dict) -> None:
        self.model, self.samples = model, samples
        self._run = UnlabelledRun(tell=False)

    @torch.no_grad()
    def look(self) -> tuple[Tensor, list[LevelMaps]]:
        """Run student and teacher on them, in evaluation mode and full precision.

        Weights, running statistics, random numbers and records stay as they are, and
        labels are not needed unless a loss records what needs them.

        Returns:
            tuple[Tensor, list[LevelMaps]]: The images (N, C, H, W) as the student got
            them, and the levels whose features are maps.

        Raises:
            ValueError: If a level cannot take images of this size.
        """
        model, distiller = self.model, self.model.distiller
        with same_random_state(), evaluation(model):
            data = model.data_preprocessor(_copied(self.samples), False)
            inputs, samples = data['inputs'], data.get('data_samples')
            try:
                if isinstance(model, FeatureDistill):
                    self._record(inputs, samples)
                else:
                    model.loss(inputs, samples)
                return inputs.float().cpu(), list(_level_maps(distiller))
            finally:
                clear_records(distiller)

    def _record(self, inputs: Tensor, data_samples: list | None) -> None:
        """Run both models no deeper than recorded, without any loss."""
        model, distiller = self.model, self.model.distiller
        recorders = distiller.student_recorders.recorders
        attach_recorders(recorders, model.architecture, 'student')
        distiller.set_deliveries_override(False)
        model._teacher.record(distiller, inputs, data_samples)
        distiller.set_deliveries_override(True)
        with distiller.student_recorders, distiller.deliveries:
            self._run(model.architecture, distiller, inputs, data_samples)


def joined(looks: Sequence[Sequence[LevelMaps]]) -> list[LevelMaps]:
    """Join what was seen of several batches.

    Args:
        looks (Sequence[Sequence[LevelMaps]]): Levels of each batch.

    Returns:
        list[LevelMaps]: The levels, with the images of all batches.
    """
    return [
        replace(
            levels[0],
            **{
                role: torch.cat([getattr(level, role) for level in levels])
                for role in ('student', 'prediction', 'teacher')
            },
        )
        for levels in zip(*looks)
    ]


def _level_maps(distiller: ConfigurableDistiller) -> Iterator[LevelMaps]:
    recorded = recorded_features(distiller)
    for name, pair in compared_pairs(distiller).items():
        if not all(torch.is_tensor(x) and x.dim() in (2, 4) for x in pair):
            continue
        prediction, teacher = (as_map(x).float().cpu() for x in pair)
        ours = recorded[name].student
        if not ours or ours[0].tensor.dim() not in (2, 4):
            continue
        student = as_map(ours[0].tensor).float().cpu()
        layer = _filter_of(distiller, name)
        yield LevelMaps(name, ours[0].layer, student, prediction, teacher, layer)


def _filter_of(
    distiller: ConfigurableDistiller, name: str
) -> FrequencyAttention | None:
    """The frequency attention that a level's student feature passes."""
    places: list[Any] = [
        distiller.connectors[level.connector]
        # A neck stands for all of its maps, which have names of their own.
        for level in compared_levels(distiller).get(name, ())
        if level.from_student and level.connector is not None
    ]
    number = name.removeprefix('loss_level')
    for connector in distiller.connectors.values():
        # One connector of all levels: that of a ReviewDistiller.
        levels = getattr(connector, 'levels', ())
        if number.isdigit() and int(number) < len(levels):
            places.append(levels[int(number)])
    return next((layer for place in places for layer in _filters_in(place)), None)


def _filters_in(place: nn.Module) -> Iterator[FrequencyAttention]:
    for layer in place.modules():
        if isinstance(layer, FrequencyAttention) and layer.with_global:
            # One frequency is a number, not a filter.
            yield from [layer] if layer.grid != (1, 1) else []


def _copied(samples: dict) -> dict:
    """A batch whose samples a preprocessor may write into."""
    return {
        key: [
            sample.clone() if hasattr(sample, 'clone') else sample for sample in value
        ]
        if isinstance(value, (list, tuple))
        else value
        for key, value in samples.items()
    }
