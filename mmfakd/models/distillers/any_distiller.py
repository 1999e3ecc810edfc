# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What algorithms ask of a distiller, be it one of these or one of mmrazor's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

from mmrazor.models.distillers import ConfigurableDistiller

from .level import Level

# What the losses of levels are called.
_LEVEL = re.compile(r'loss_level\d+')


def hook_of(distiller: ConfigurableDistiller, *names: str) -> Callable:
    """Find a hook of a distiller; mmrazor's own lack ours.

    Args:
        distiller (ConfigurableDistiller): The distiller.
        *names (str): What the hook may be called.

    Returns:
        Callable: The first that the distiller has, or one that does nothing.
    """
    found = [getattr(distiller, name) for name in names if hasattr(distiller, name)]
    return found[0] if found else lambda *args: None


def is_level(name: str) -> bool:
    """Tell whether a loss is that of a level, which the distiller's weight scales.

    Args:
        name (str): Its name.

    Returns:
        bool: Whether it is ``'loss_level0'`` or another of them.
    """
    return _LEVEL.fullmatch(name) is not None


def compared_levels(distiller: ConfigurableDistiller) -> dict[str, list[Level]]:
    """Find what each loss is given: by mappings, and by the levels of a distiller.

    Args:
        distiller (ConfigurableDistiller): The distiller.

    Returns:
        dict[str, list[Level]]: Name of the loss -> levels of student and teacher.
    """
    found: dict[str, Any] = {
        name: [Level(**record) for record in mapping.values()]
        for name, mapping in distiller.loss_forward_mappings.items()
    }
    roles = ('student_levels', 'teacher_levels')
    levels = zip_longest(*(getattr(distiller, role, ()) for role in roles))
    for i, pair in enumerate(levels):
        found[f'loss_level{i}'] = [level for level in pair if level is not None]
    return found


def compared_pairs(distiller: ConfigurableDistiller) -> dict[str, tuple[Any, Any]]:
    """Read what the losses compare, without computing them; it runs connectors.

    Args:
        distiller (ConfigurableDistiller): The distiller, after both models ran.

    Returns:
        dict[str, tuple]: Name of the loss -> what it gets of the student, and of the
        teacher, the first of each where it gets several.

    Raises:
        ValueError: If the two features of a level cannot be compared.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name, mapping in distiller.loss_forward_mappings.items():
        sides: dict[bool, Any] = {}
        for record in mapping.values():
            side = bool(record['from_student'])
            if side not in sides:
                sides[side] = distiller.get_record(**record)
        if len(sides) == 2:
            found[name] = sides[True], sides[False]
    for i, (prediction, target) in enumerate(hook_of(distiller, 'level_pairs')() or ()):
        found[f'loss_level{i}'] = prediction, target
    return found


def missing_records(
    distiller: ConfigurableDistiller, from_student: bool = False
) -> list[str]:
    """Name the recorders, and the teacher's deliveries, that lack their data.

    Args:
        distiller (ConfigurableDistiller): The distiller, after the model ran.
        from_student (bool): Whether that was the student. Defaults to False.

    Returns:
        list[str]: The names.
    """
    role = 'student' if from_student else 'teacher'
    recorders = getattr(distiller, f'{role}_recorders').recorders
    needed = dict.fromkeys(recorders, 1)
    for level in chain(*compared_levels(distiller).values()):
        if level.from_student == from_student:
            calls = level.call + 1
            needed[level.recorder] = max(needed[level.recorder], calls)
    hungry = [n for n, r in recorders.items() if len(r.data_buffer) < needed[n]]
    if from_student:
        return hungry
    deliveries = distiller.deliveries.deliveries
    return hungry + [n for n, d in deliveries.items() if not d.data_queue]


def clear_records(distiller: ConfigurableDistiller) -> None:
    """Forget all records; graph tensors in them cannot be deep-copied.

    Args:
        distiller (ConfigurableDistiller): The distiller.
    """
    managers = (distiller.student_recorders, distiller.teacher_recorders)
    for recorder in chain(*(manager.recorders.values() for manager in managers)):
        recorder.reset_data_buffer()
    for delivery in distiller.deliveries.deliveries.values():
        delivery.data_queue.clear()
    hook_of(distiller, 'forget_step')()
