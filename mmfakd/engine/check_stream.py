# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Training data that do not say how many batches they have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import LogProcessor

from mmfakd.datasets.wrappers import length_of, walk_loaders
from mmfakd.model_zoo.type_names import type_name

from .safety import loops_as_mmengine_by_epoch

_ADVICE = (
    'Give the data set, or its sampler, a `__len__`: the number of images, or an '
    'estimate that is not too low. Without one they train in a loop of iterations '
    'alone, with param_scheduler=None, default_hooks=dict(logger=None) and, if it is '
    'an IterableDataset, train_dataloader.sampler=None.'
)
# What a runner builds that asks for a length -> the key of the config. The loop builds
# the loader, so that the first one found is what asks.
_BUILDERS = dict(
    build_dataloader='train_dataloader.sampler',
    build_param_scheduler='param_scheduler',
    build_train_loop='train_cfg',
)


def check_stream(
    loader: Any,
    hooks: Iterable[Any],
    others: Iterable[str] = (),
    log_processor: Any = None,
) -> None:
    """Refuse a loader without a length where MMEngine asks for it.

    Args:
        loader (Any): The loader of training batches.
        hooks (Iterable[Any]): The hooks of the training.
        others (Iterable[str]): What else asks, see :func:`asks_for_length`.
        log_processor (LogProcessor, optional): What the runner's logger writes with.

    Raises:
        ValueError: If it has no length, and something asks.
    """
    if length_of(loader) is not None:
        return
    asking = [*others, *filter(None, (_asking(hook, log_processor) for hook in hooks))]
    if asking:
        kind = type(getattr(loader, 'dataset', loader)).__name__
        raise ValueError(_text(kind, ', '.join(asking)))


def asks_for_length(cfg: Config) -> list[str]:
    """List what of MMEngine's, beside hooks, asks a loader for its length.

    Args:
        cfg (Config): The config of a training.

    Returns:
        list[str]: The keys of the config. Schedules of iterations are asked, too.
    """
    asking = ['param_scheduler'] if cfg.get('param_scheduler') else []
    return asking + ['train_cfg'] * loops_as_mmengine_by_epoch(cfg)


@contextmanager
def explain_stream(
    cfg: Config, within: Sequence[str] = ('build_train_loop', 'build_param_scheduler')
) -> Iterator[None]:
    """Say in words that a training has asked data for a length that they do not have.

    Samplers, loops of epochs and schedules are built before any hook can look at the
    data. What is raised elsewhere, as by a hook or in validation, stays as it is.

    Args:
        cfg (Config): The config of the training.
        within (Sequence[str]): Names of the functions that build something of the
            training data alone. Defaults to the runner's.

    Yields:
        None: While it trains.

    Raises:
        ValueError: In place of the ``TypeError``.
    """
    try:
        yield
    except TypeError as error:
        found = re.search(r"object of type '(\w+)' has no len\(\)", str(error))
        asking = _asking_builder(error, within)
        if found is None or asking is None or found[1] not in _types(cfg):
            raise
        others = [key for key in asks_for_length(cfg) if key != asking]
        raise ValueError(_text(found[1], ', '.join([asking, *others]))) from error


def _asking_builder(error: TypeError, within: Sequence[str]) -> str | None:
    """Tell by a traceback what was built; None if it is not known to be what asks."""
    names = {frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)}
    if names.isdisjoint(within):
        return None
    return next((key for name, key in _BUILDERS.items() if name in names), None)


def _text(kind: str, asking: str) -> str:
    return (
        f'The training data ({kind}) do not say how many batches they have, which '
        f'MMEngine asks for ({asking}). {_ADVICE}'
    )


def _asking(hook: Any, log_processor: Any) -> str | None:
    """Name MMEngine's logger if it looks for the end of an epoch, or writes its length.

    Hooks and log processors with parts of their own are taken to know their data.
    """
    kind = type(hook)
    if getattr(kind, 'after_train_iter', None) is not LoggerHook.after_train_iter:
        return None
    # It does not look where it writes at every iteration.
    always = hook.interval == hook.interval_exp_name == 1
    if kind.end_of_epoch is Hook.end_of_epoch and not always:
        return kind.__name__
    stock = all(
        getattr(type(log_processor), name, None) is getattr(LogProcessor, name)
        for name in ('get_log_after_iter', '_get_dataloader_size')
    )
    if stock and log_processor.by_epoch:
        return f'{kind.__name__} with log_processor.by_epoch'
    return None


def _types(cfg: Config) -> set[str]:
    """The classes that make the length of a loader."""
    return {
        type_name(loader[key])
        for loader in walk_loaders(cfg.get('train_dataloader'))
        for key in ('dataset', 'sampler', 'batch_sampler')
        if isinstance(loader.get(key), dict)
    }
