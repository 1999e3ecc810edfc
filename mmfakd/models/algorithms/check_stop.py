# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A distillation that is stopped where nothing else teaches."""

from __future__ import annotations

import math

from .first_step import NOTHING_DISTILLED

STOPPED_AT_ONCE = (
    f'{NOTHING_DISTILLED}: distillation is stopped before the first step, and as long '
    'as it is the student learns as without a teacher. Give StopDistillHook a '
    '`stop_epoch` above 0, or take it out of the config.'
)


def check_stop(stop: tuple[str, int] | None, length: float, setting: str) -> None:
    """Refuse a training that will be left with nothing to learn before it ends.

    Args:
        stop (tuple[str, int], optional): The hook that ends the distillation, and its
            ``stop_epoch``.
        length (float): The epochs of the training.
        setting (str): Why the student has no loss of its own.

    Raises:
        ValueError: If a hook is to stop the distillation before the last epoch.
    """
    name, end = stop or ('', math.inf)
    if end < length:
        raise ValueError(
            f'{name} got stop_epoch={end} of {length} epochs, and {setting}: {_CURE}'
        )


def refuse_stopped(setting: str) -> None:
    """Refuse a step without distillation in which nothing else teaches, either.

    Args:
        setting (str): Why the student has no loss of its own.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError(f'Distillation has been stopped and {setting}: {_CURE}')


_CURE = (
    'nothing is left to learn. Take StopDistillHook out of the config, or end the '
    'training at its `stop_epoch`.'
)
