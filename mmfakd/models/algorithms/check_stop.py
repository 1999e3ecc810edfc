# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A distillation that is stopped where nothing else teaches."""

from __future__ import annotations

import math
from typing import Any

from mmengine.runner import BaseLoop


def check_stop(loop: BaseLoop | None, setting: str) -> None:
    """Refuse a training that will be left with nothing to learn before it ends.

    Args:
        loop (BaseLoop, optional): The loop that trains.
        setting (str): Why the student has no loss of its own.

    Raises:
        ValueError: If a hook is to stop the distillation before the last epoch.
    """
    runner: Any = getattr(loop, 'runner', None)
    length = getattr(loop, 'max_epochs', math.inf)
    for hook in getattr(runner, 'hooks', ()):
        stop = getattr(hook, 'stop_epoch', None)
        distils = 'distill' in type(hook).__name__.lower()
        if distils and isinstance(stop, int) and stop < length:
            raise ValueError(
                f'{type(hook).__name__} got stop_epoch={stop} of {length} epochs, and '
                f'{setting}: {_CURE}'
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
