# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Heads whose logits are others in training, where a margin is at work."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn

from mmfakd.models.distillers.any_distiller import compared_levels
from mmfakd.models.distillers.level import Level, as_path


def why_margin(model: nn.Module) -> str | None:
    """Tell why the logits of a student are not to be compared with a teacher's.

    Args:
        model (nn.Module): The student.

    Returns:
        str | None: What is said of it if its head is mmpretrain's
        ``ArcFaceClsHead`` or a subclass. None for all others: a head may take labels
        for other ends.
    """
    head = getattr(model, 'head', None)
    # By name, as it is imported with mmpretrain only.
    if 'ArcFaceClsHead' not in {c.__name__ for c in type(head).__mro__}:
        return None
    return (
        f'has a head ({type(head).__name__}) that takes the labels in training and '
        "puts a margin on the right class's logit, which the teacher's are without: "
        'even a student equal to its teacher would be pulled away from it'
    )


def warn_of_margin(distiller: ConfigurableDistiller, student: nn.Module) -> None:
    """Warn of losses that compare logits with a margin with those without.

    Args:
        distiller (ConfigurableDistiller): The distiller.
        student (nn.Module): The student, whose own loss counts: without it, its head
            gets no labels.
    """
    why = why_margin(student)
    if why is None:
        return
    for name, levels in compared_levels(distiller).items():
        taught = any(not level.from_student for level in levels)
        if taught and any(_has_margin(level, distiller) for level in levels):
            print_log(
                f'{name} compares logits, and the student {why}. Distil features '
                '(mmfakd.ReviewDistiller).',
                logger='current',
                level=logging.WARNING,
            )


def _has_margin(level: Level, distiller: ConfigurableDistiller) -> bool:
    """Whether a loss is given what the student's head yields, or its loss takes."""
    recorder = level.recorder_of(distiller)
    source = getattr(recorder, 'source', '')
    if not level.from_student:
        return False
    entering = type(recorder).__name__ == 'ModuleInputsRecorder'
    if source == 'head.loss_module' and entering:
        # Behind the logits there are the labels.
        return list(as_path(level.data_idx))[:1] != [1]
    return source == 'head' and not entering
