# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The loop that trains a model, which MMEngine does not tell the model."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain, count
from types import FrameType
from typing import Any

from mmengine.logging import MessageHub
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

_NUMBERS = count()


def running_loop() -> BaseLoop | None:
    """Find the loop that called a model.

    Its message hub says how many epochs and iterations there are, but not which of
    them a loop counts: an iteration based one is a single epoch to it. So the loop is
    looked up among the callers; this is for the first step of a training.

    Returns:
        BaseLoop | None: The innermost loop; None outside of a runner.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get('self')
        if isinstance(owner, BaseLoop):
            return owner
        frame = frame.f_back
    return None


def message_hub(loop: BaseLoop | None = None) -> MessageHub:
    """Find the message hub that tells the progress of the running training.

    MMEngine's current hub is that of the runner that was built last, which need not be
    the one that runs, as where a notebook builds several.

    Args:
        loop (BaseLoop, optional): The loop that runs, where it is known. Defaults to
            the one that is found.

    Returns:
        MessageHub: That of the runner whose loop called; outside of one, or where it
        has none, the current one.
    """
    runner = getattr(loop or running_loop(), 'runner', None)
    hub = getattr(runner, 'message_hub', None)
    return MessageHub.get_current_instance() if hub is None else hub


def iterations_done() -> int:
    """Say how far the running training has come.

    Outside of a loop there is none: what the current hub tells is then of a training
    that is over, as in a notebook.

    Returns:
        int: Its iterations up to now; 0 outside of a runner.
    """
    loop = running_loop()
    if loop is None:
        return 0
    return message_hub(loop).runtime_info.get('iter', 0)


def start_message_hub(name: str) -> None:
    """Make a message hub the current one that tells of a beginning.

    It is for steps outside of a runner, which else read the progress of the training
    before them.

    Args:
        name (str): What begins, for the hub's name; a number is added.
    """
    hub = MessageHub.get_instance(f'{name}-{next(_NUMBERS)}')
    hub.update_info_dict(dict(iter=0, epoch=0))


def counts_iterations(loop: BaseLoop | None) -> bool:
    """Whether a loop trains by iterations, so that its epoch stays 0.

    Args:
        loop (BaseLoop, optional): The loop.

    Returns:
        bool: True for an ``IterBasedTrainLoop`` and those of its kind.
    """
    if isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return isinstance(loop, IterBasedTrainLoop)
    # A loop of the user's own says it as MMEngine's does.
    return getattr(loop, 'max_epochs', None) == 1 and hasattr(loop, 'max_iters')


def all_schedulers(given: Any) -> list[Any]:
    """List the schedulers of one optimizer or several.

    Args:
        given (list | dict, optional): A runner's ``param_schedulers``, or those of a
            checkpoint.

    Returns:
        list: All of them.
    """
    lists = given.values() if isinstance(given, dict) else [given or ()]
    return list(chain.from_iterable(lists))


def distillation_stop(loop: BaseLoop | None) -> tuple[str, int] | None:
    """Find the hook that ends the distillation of a training, such as mmrazor's.

    Args:
        loop (BaseLoop, optional): The loop that trains.

    Returns:
        tuple[str, int], optional: Name of the hook, and its ``stop_epoch``; of the
        first to stop.
    """
    runner: Any = getattr(loop, 'runner', None)
    return first_stop(getattr(runner, 'hooks', ()))


def first_stop(hooks: Iterable[Any]) -> tuple[str, int] | None:
    """Find the hook that ends a distillation first.

    Args:
        hooks (Iterable[Hook]): The hooks of a training.

    Returns:
        tuple[str, int], optional: As :func:`distillation_stop`.
    """
    stops = [(getattr(hook, 'stop_epoch', None), type(hook).__name__) for hook in hooks]
    found = [
        (name, stop)
        for stop, name in stops
        if 'distill' in name.lower() and isinstance(stop, int)
    ]
    return min(found, key=lambda pair: pair[1], default=None)
