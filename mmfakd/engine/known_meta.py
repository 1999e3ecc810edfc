# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the data sets of a training say of their classes."""

from __future__ import annotations

from mmengine.runner import Runner

from mmfakd.datasets.wrappers import dataset_meta, walk_loaders


def known_meta(runner: Runner) -> dict:
    """Read what the data sets of a training say of their classes.

    Args:
        runner (Runner): The runner, in training.

    Returns:
        dict: The meta information of the first training data set that names classes;
        where images have no labels, of the validation's; empty without.
    """
    loaders = [runner.train_dataloader]
    if runner.val_loop is not None:
        loaders.append(runner.val_dataloader)
    found = (dataset_meta(loader.dataset) for loader in walk_loaders(loaders))
    return next((meta for meta in found if _names(meta)), {})


def _names(meta: dict) -> bool:
    """Whether there are names; of an array nobody may ask that."""
    names = meta.get('classes')
    return names is not None and len(names) > 0
