# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tells what waits for an epoch that never comes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop

from mmfakd.compat.running_loop import all_schedulers, counts_iterations

_WHY = 'in a {} there is only one epoch'
_PLACES = ('before_train_epoch', 'after_train_epoch')


def check_counters(loop: BaseLoop | None) -> None:
    """Look for what counts epochs in a loop that counts iterations.

    MMEngine takes such a training for one epoch, and says nothing: what is to happen
    after some epochs does not happen.

    Args:
        loop (BaseLoop, optional): The loop that trains. Where it has epochs, nothing is
            looked for.

    Raises:
        ValueError: If a hook is to stop the distillation at an epoch. Other hooks and
            the learning rate's schedulers are told in a warning.
    """
    if loop is None or not counts_iterations(loop):
        return
    runner: Any = loop.runner
    kind = type(loop).__name__
    why = _WHY.format(kind)
    refuse_epoch_stops(runner.hooks, kind)
    for hook in runner.hooks:
        waits = dict(_epochs_of(hook))
        name = type(hook).__name__
        # mmdet's YOLOXModeSwitchHook, `num_last_epochs`, counts from the end.
        if any('last' in key for key in waits):
            _warn(
                f'{name} got {waits}, but {why}: it acts at the first iteration, for '
                'the whole training. Leave the hook out, or train by epochs.'
            )
        elif waits:
            _warn(f'{name} got {waits}, but {why}: it never acts.')
        elif _saves_epochs(hook):
            _warn(
                f'{name} got by_epoch=True, but {why}: nothing is saved until the end. '
                'Give it `by_epoch=False` and an `interval` in iterations.'
            )
    for scheduler in all_schedulers(runner.param_schedulers):
        if scheduler.by_epoch and not getattr(scheduler, 'need_val_args', False):
            _warn(
                f'The scheduler {type(scheduler).__name__} got by_epoch=True, but '
                f'{why}: its `{scheduler.param_name}` never changes. Give it '
                '`by_epoch=False`, and `begin`, `end` and the like in iterations.'
            )


def refuse_epoch_stops(hooks: Iterable[Hook], kind: str) -> None:
    """Refuse hooks that would stop a distillation at an epoch that never comes.

    Args:
        hooks (Iterable[Hook]): The hooks of a training whose loop counts iterations.
        kind (str): Name of the loop's class.

    Raises:
        ValueError: If there is one.
    """
    for hook in hooks:
        waits = dict(_epochs_of(hook))
        name = type(hook).__name__
        if waits and 'distill' in name.lower():
            raise ValueError(
                f'{name} got {waits}, but {_WHY.format(kind)}: the distillation would '
                'go on to the end. Leave the hook out, or train by epochs '
                '(`train_cfg=dict(by_epoch=True, max_epochs=...)`).'
            )


def _saves_epochs(hook: Hook) -> bool:
    return isinstance(hook, CheckpointHook) and hook.by_epoch and hook.interval > 0


def _epochs_of(hook: Hook) -> Iterator[tuple[str, Any]]:
    """Names and numbers of the epochs that a hook waits for."""
    if not any(getattr(type(hook), p) is not getattr(Hook, p) for p in _PLACES):
        return
    for name, value in vars(hook).items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and value > 0 and 'epoch' in name:
            yield name, value
    # mmpretrain's SwitchRecipeHook: epoch, counted from 1 -> recipe.
    schedule = getattr(hook, 'schedule', None)
    given = schedule if isinstance(schedule, dict) else ()
    # Another hook may call something else so.
    epochs = [epoch for epoch in given if isinstance(epoch, int)]
    if any(epoch != 1 for epoch in epochs):
        yield 'action_epoch', epochs


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
