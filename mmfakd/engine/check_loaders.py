# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Mistakes in what a config says of data loaders, told before anything is built."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

# What torch has only with workers -> what a loader without them has.
_OF_WORKERS = dict(persistent_workers=False, prefetch_factor=None)


def check_loaders(cfg: Config, *names: str) -> None:
    """Check the numbers of loaders, which torch would refuse without naming the loader.

    Args:
        cfg (Config): The whole config.
        *names (str): Those of the loaders, such as ``'train_dataloader'``; what is not
            there, or no dict, is not looked at.

    Raises:
        ValueError: If a batch would have no images, a loader fewer than no workers, or
            something of workers without one.
    """
    for name in names:
        loader = cfg.get(name)
        # A loader of one's own may count in other ways.
        if isinstance(loader, dict) and 'type' not in loader:
            _check_loader(name, loader)


def _check_loader(name: str, loader: dict[str, Any]) -> None:
    size, workers = loader.get('batch_size', 1), loader.get('num_workers', 0)
    # None is that of data sets that make batches themselves; a sampler of batches may
    # want one for each data set.
    if not loader.get('batch_sampler') and size is not None and not _counts(size, 1):
        raise ValueError(
            f'{name} has batch_size={size!r}; expected a whole number above 0.'
        )
    if not _counts(workers, 0):
        raise ValueError(
            f'{name} has num_workers={workers!r}; expected a whole number, 0 to load '
            'images in the process that trains.'
        )
    for key, without in _OF_WORKERS.items():
        if workers == 0 and loader.get(key, without) != without:
            raise ValueError(
                f'{name} has num_workers=0 and {key}={loader[key]!r}, which only '
                f'workers have: give {key}={without}, too '
                f'(--cfg-options {name}.{key}={without}).'
            )


def _counts(value: Any, least: int) -> bool:
    """Whether something is a whole number as torch wants it, no ``True`` and no 8.0."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and value >= least
