# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A distillation that is stopped where nothing else teaches."""

from __future__ import annotations

import math

from mmengine.runner import BaseLoop

from mmfakd.compat.running_loop import distillation_stop


def check_stop(loop: BaseLoop | None, setting: str) -> None:
    """Refuse a training that will be left with nothing to learn before it ends.

    Args:
        loop (BaseLoop, optional): The loop that trains.
        setting (str): Why the student has no loss of its own.

    Raises:
        ValueError: If a hook is to stop the distillation before the last epoch.
    """
    length = getattr(loop, 'max_epochs', math.inf)
    name, stop = distillation_stop(loop) or ('', math.inf)
    if stop < length:
        raise ValueError(
            f'{name} got stop_epoch={stop} of {length} epochs, and {setting}: {_CURE}'
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
