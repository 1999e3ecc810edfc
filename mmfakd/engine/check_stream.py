# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Training data that do not say how many batches they have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.hooks import LoggerHook

from mmfakd.datasets.wrappers import length_of, type_name, walk_loaders

from .safety import loops_as_mmengine_by_epoch

_ADVICE = (
    'Give the data set, or its sampler, a `__len__`: the number of images, or an '
    'estimate that is not too low. Without one they train in a loop of iterations '
    'alone, with param_scheduler=None and default_hooks=dict(logger=None).'
)


def check_stream(loader: Any, hooks: Iterable[Any], others: Iterable[str] = ()) -> None:
    """Refuse a loader without a length where MMEngine asks for it.

    Args:
        loader (Any): The loader of training batches.
        hooks (Iterable[Any]): The hooks of the training.
        others (Iterable[str]): What else asks, see :func:`asks_for_length`.

    Raises:
        ValueError: If it has no length, and something asks.
    """
    if length_of(loader) is not None:
        return
    asking = [*others, *(type(hook).__name__ for hook in hooks if _asks(hook))]
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
def explain_stream(cfg: Config) -> Iterator[None]:
    """Say in words that a training has asked data for a length that they do not have.

    Loops of epochs and schedules are built before any hook can look at the data.

    Args:
        cfg (Config): The config of the training.

    Yields:
        None: While it trains.

    Raises:
        ValueError: In place of the ``TypeError``.
    """
    try:
        yield
    except TypeError as error:
        found = re.search(r"object of type '(\w+)' has no len\(\)", str(error))
        if found is None or found[1] not in _types(cfg):
            raise
        asking = asks_for_length(cfg) or ['a hook']
        raise ValueError(_text(found[1], ', '.join(asking))) from error


def _text(kind: str, asking: str) -> str:
    return (
        f'The training data ({kind}) do not say how many batches they have, which '
        f'MMEngine asks for ({asking}). {_ADVICE}'
    )


def _asks(hook: Any) -> bool:
    """Whether it is MMEngine's logger, which looks for the end of an epoch."""
    logs = getattr(type(hook), 'after_train_iter', None) is LoggerHook.after_train_iter
    # It does not look where it writes at every iteration.
    return logs and not hook.interval == hook.interval_exp_name == 1


def _types(cfg: Config) -> set[str]:
    """The classes that make the length of a loader."""
    return {
        type_name(loader[key])
        for loader in walk_loaders(cfg.get('train_dataloader'))
        for key in ('dataset', 'sampler', 'batch_sampler')
        if isinstance(loader.get(key), dict)
    }
