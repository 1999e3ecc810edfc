# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Refuses to compare predictions of different classes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from mmengine.logging import print_log
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules.recorder import (
    ModuleInputsRecorder,
    ModuleOutputsRecorder,
)
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mmfakd.messages import documentation
from mmfakd.models.distillers.any_distiller import compared_levels, is_level
from mmfakd.models.distillers.level import Level, as_path
from mmfakd.models.losses import LogitMapLoss, StandardizedLogitsLoss

from .count_classes import count_classes
from .why_no_softmax import is_reid, why_no_softmax

# They compare class with class ...
_BY_CLASS = {
    'CrossEntropyLoss',
    'DISTLoss',
    'DKDLoss',
    'KDSoftCELoss',
    'KLDivergence',
    'KnowledgeDistillationKLDivLoss',
    'NKDLoss',
    'WSLD',
}
# ... or channel with channel, and would broadcast one channel to many unseen.
_BY_CHANNEL = {'ABLoss', 'ChannelWiseDivergence', 'L1Loss', 'L2Loss', 'OFDLoss'}
# They compare samples or positions: channels and classes may differ.
_BY_RELATION = {'ATLoss', 'AngleWiseRKD', 'DistanceWiseRKD'}
_FEATURE_PARTS = ('backbone', 'neck')


class _Side(NamedTuple):
    """What a loss gets of the student or of the teacher."""

    source: str
    width: int | None
    classes: int | None
    # Of what was recorded.
    shape: tuple[int, ...] | None = None

    @property
    def is_prediction(self) -> bool:
        return self.source.partition('.')[0] not in _FEATURE_PARTS

    @property
    def is_class_scores(self) -> bool:
        """Whether the width is the classes', for each anchor, with background."""
        width, classes = self.width, self.classes
        if not width or not classes:
            return False
        # One channel of a segmentor, above a threshold or below.
        if (width, classes) == (1, 2):
            return True
        return 0 in (width % classes, width % (classes + 1))


def check_class_counts(
    distiller: ConfigurableDistiller,
    student: nn.Module,
    teacher: nn.Module,
    recorded: bool,
) -> None:
    """Check that no loss compares predictions of other classes.

    A logits loss needs the same classes on both sides; features have no classes. A
    loss of a mapping without connectors is refused if the student's and the teacher's
    tensor differ in width (the last dimension of (N, C) and (N, L, C), the second of
    (N, C, H, W)), and either the loss is known to go class by class or channel by
    channel, or both are scores of the models' different classes. Losses that compare
    relations of samples or attention maps, such as RKD and AT, are left alone.

    Args:
        distiller (ConfigurableDistiller): The distiller, its recorders prepared.
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.
        recorded (bool): Whether a step was recorded, whose tensors tell the widths.
            Before one only linear and convolution layers do.

    Raises:
        ValueError: If a loss cannot compare what it gets, once recorded also for maps
            of other sizes. The message has both and says how to go on.
    """
    for name, kind, ours, theirs in _compared(distiller, student, teacher, recorded):
        if None in (ours.width, theirs.width):
            continue
        if ours.width == theirs.width:
            _check_shapes(name, distiller.distill_losses[name], ours, theirs)
            continue
        predictions = ours.is_prediction and theirs.is_prediction
        scores = ours.is_class_scores and theirs.is_class_scores
        if predictions and (
            kind in _BY_CLASS or (scores and ours.classes != theirs.classes)
        ):
            raise ValueError(_class_message(name, kind, ours, theirs))
        # LevelDistiller itself compares the shapes of its levels, once they are maps.
        if kind in _BY_CLASS | _BY_CHANNEL and not is_level(name):
            raise ValueError(
                f'{name}: {kind} compares channel by channel, but the student gives '
                f'it {ours.width} channels ({ours.source!r}) and the teacher '
                f"{theirs.width} ({theirs.source!r}). Bring the student's to the "
                "teacher's number with a connector, or record layers of equal width."
            )


def warn_of_softmax(
    distiller: ConfigurableDistiller, student: nn.Module, teacher: nn.Module
) -> None:
    """Warn of losses with a softmax over predictions that have none.

    Args:
        distiller (ConfigurableDistiller): The distiller, its recorders prepared.
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.
    """
    models = dict(student=student, teacher=teacher)
    whys = {role: why_no_softmax(model) for role, model in models.items()}
    if not any(whys.values()):
        return
    for name, kind, *sides in _compared(distiller, student, teacher, False):
        reasons = [
            f'the {role} {whys[role]}'
            for (role, model), side in zip(models.items(), sides)
            # Behind its embedding a model for re-identification has classes, too.
            if whys[role] and not (is_reid(model) and side.source == 'head.classifier')
        ]
        # A cross entropy may be one of sigmoids.
        by_softmax = kind in _BY_CLASS - {'CrossEntropyLoss'}
        if reasons and by_softmax and all(side.is_prediction for side in sides):
            print_log(
                f'{name}: {kind} compares a softmax over classes, and '
                f'{", and ".join(reasons)}. Two opposite predictions may then differ '
                'by nothing. Distil features (mmfakd.ReviewDistiller), or take a loss '
                'that compares class by class, such as mmrazor.L2Loss.',
                logger='current',
                level=logging.WARNING,
            )


def class_losses(
    distiller: ConfigurableDistiller, student: nn.Module, teacher: nn.Module
) -> list[str]:
    """Name the losses that compare class with class.

    Args:
        distiller (ConfigurableDistiller): The distiller, its recorders prepared.
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.

    Returns:
        list[str]: Those of a kind that does, on anything behind the features, and
        others that are given a layer as wide as the classes.
    """
    return [
        name
        for name, kind, *sides in _compared(distiller, student, teacher, False)
        if all(side.is_prediction for side in sides)
        and (kind in _BY_CLASS or all(side.is_class_scores for side in sides))
    ]


def _compared(
    distiller: ConfigurableDistiller,
    student: nn.Module,
    teacher: nn.Module,
    recorded: bool,
) -> Iterator[tuple[str, str, _Side, _Side]]:
    """Go through the losses that compare channels: name, kind, and both sides."""
    models = {True: student, False: teacher}
    for name, levels in compared_levels(distiller).items():
        # The levels of a review share one loss, behind one connector.
        if name not in distiller.distill_losses:
            continue
        kind = _kind(distiller.distill_losses[name])
        # A connector may well turn one number of classes into another.
        if kind in _BY_RELATION or any(level.connector for level in levels):
            continue
        sides: dict[bool, _Side] = {}
        for level in levels:
            recorder, model = level.recorder_of(distiller), models[level.from_student]
            shape = _record_shape(recorder, level) if recorded else None
            width = _width(shape) if recorded else _layer_width(recorder, model)
            known = sides.get(level.from_student)
            if known is None or known.width is None:
                side = _Side(recorder.source, width, count_classes(model), shape)
                sides[level.from_student] = side
        if len(sides) == 2:
            yield name, kind, sides[True], sides[False]


def _kind(loss: nn.Module) -> str:
    """What a loss does, or the one that a loss around it holds."""
    while isinstance(loss, (LogitMapLoss, StandardizedLogitsLoss)):
        loss = loss.loss
    return type(loss).__name__


def _class_message(name: str, kind: str, student: _Side, teacher: _Side) -> str:
    both = student.classes is not None and teacher.classes is not None
    known = both and student.classes != teacher.classes
    counts = [side.classes if known else side.width for side in (student, teacher)]
    return (
        f'{name}: {kind} compares the predictions of student and teacher, but the '
        f'student has {counts[0]} classes and the teacher {counts[1]} (layers '
        f'{student.source!r} and {teacher.source!r}, {student.width} and '
        f'{teacher.width} values). Features have no classes: feature losses work for '
        'this pair. Either remove this loss and distil features (for example with '
        'mmfakd.ReviewDistiller on layers of backbone or neck), or first train the '
        f"teacher on the student's classes. See {documentation('own_data.md')}."
    )


def _check_shapes(name: str, loss: nn.Module, ours: _Side, theirs: _Side) -> None:
    """Refuse maps of other sizes, of which one may be broadcast to the other unseen."""
    if None in (ours.shape, theirs.shape) or ours.shape == theirs.shape:
        return
    # Levels compare shapes themselves, and losses around others may resize.
    if type(loss).__name__ in _BY_CLASS | _BY_CHANNEL and not is_level(name):
        raise ValueError(
            f'{name}: {type(loss).__name__} compares number by number, but the student '
            f'gives it {ours.shape} ({ours.source!r}) and the teacher {theirs.shape} '
            f'({theirs.source!r}). Record layers whose maps have one size, or bring '
            "the student's to the teacher's with a connector."
        )


def _width(shape: tuple[int, ...] | None) -> int | None:
    if shape is None or len(shape) < 2:
        return None
    return shape[-1] if len(shape) == 3 else shape[1]


def _record_shape(recorder: BaseRecorder, level: Level) -> tuple[int, ...] | None:
    """Shape of the tensor, or of the first one, that a level points at."""
    try:
        data = recorder.data_buffer[level.call]
        for index in as_path(level.data_idx):
            data = data[index]
        while isinstance(data, (list, tuple)):
            data = data[0]
    except (IndexError, TypeError):
        # There is no such record: the distiller says so.
        return None
    return tuple(data.shape) if isinstance(data, Tensor) else None


def _layer_width(recorder: BaseRecorder, model: nn.Module) -> int | None:
    """Width of what a recorded layer returns, where the layer tells."""
    # mmrazor's recorder of inputs is one of outputs, too.
    of_outputs = isinstance(recorder, ModuleOutputsRecorder)
    if not of_outputs or isinstance(recorder, ModuleInputsRecorder):
        return None
    layer = model.get_submodule(recorder.source)
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, _ConvNd) else None
