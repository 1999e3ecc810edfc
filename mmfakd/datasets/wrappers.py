# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Data sets within data sets, and loaders of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dataset import BaseDataset

from mmfakd.checkpoints.first_meta import first_meta


def walk_loaders(loader: Any) -> Iterator[Any]:
    """Go through what a config or a runner has as its loader.

    Args:
        loader (Any): A loader or its config, a list or dict of such, or None.

    Yields:
        Any: Each single loader or config, that is what has a ``dataset``.
    """
    if _child(loader, 'dataset') is not None:
        yield loader
    elif isinstance(loader, (Mapping, list, tuple)):
        for one in loader.values() if isinstance(loader, Mapping) else loader:
            yield from walk_loaders(one)


def walk_wrappers(dataset: Any, every: bool = False) -> Iterator[Any]:
    """Walk from a data set to the innermost that it wraps.

    Wrappers are those of MMEngine, mmpretrain, mmdet, mmseg and PyTorch, in any
    order: what they wrap is their ``dataset``, or the list or dict of their
    ``datasets``.

    Args:
        dataset (Any): A data set or its config, for example of a ``RepeatDataset``,
            ``ClassBalancedDataset``, ``ConcatDataset`` or ``Subset``; or None.
        every (bool): Whether to walk into each of several wrapped ones. Of these,
            otherwise, the first counts. Defaults to False.

    Yields:
        Any: Configs or data sets, from the outermost in; none for None.
    """
    if not _is_dataset(dataset):
        return
    yield dataset
    inner = inner_datasets(dataset)
    for one in inner if every else inner[:1]:
        yield from walk_wrappers(one, every)


def inner_datasets(dataset: Any) -> list[Any]:
    """List what a data set wraps.

    Args:
        dataset (Any): A data set or its config.

    Returns:
        list[Any]: Data sets or configs; empty for one that reads files itself.
    """
    if isinstance(dataset, BaseDataset):
        # What it may have under these names is its own matter.
        return []
    inner = _child(dataset, 'dataset')
    if not _is_dataset(inner):
        inner = _child(dataset, 'datasets')
        if isinstance(inner, Mapping) and 'type' not in inner:
            inner = list(inner.values())
    found = inner if isinstance(inner, (list, tuple)) else [inner]
    return [one for one in found if _is_dataset(one)]


def read_datasets(dataset: Any) -> list[Any]:
    """List the data sets that read files.

    Args:
        dataset (Any): A data set, or its config, with wrappers around or without.

    Returns:
        list[Any]: The innermost ones, in their order.
    """
    return [d for d in walk_wrappers(dataset, every=True) if not inner_datasets(d)]


def dataset_meta(dataset: Any) -> dict:
    """Read what a data set says of its classes.

    Args:
        dataset (Any): A data set; PyTorch's wrappers pass nothing on.

    Returns:
        dict: The ``metainfo`` of the outermost that has one, the first one's of joined
        data sets that differ; empty without.
    """
    found = (getattr(one, 'metainfo', None) for one in walk_wrappers(dataset))
    return next(filter(None, map(first_meta, found)), {})


def pipeline_of(dataset: Any) -> list[Any]:
    """Read the transforms of a data set, not of those that it wraps.

    Args:
        dataset (Any): A data set or its config.

    Returns:
        list[Any]: Configs, or transforms of a built one; empty without, and where a
        class of one's own has something else by that name.
    """
    pipeline = _child(dataset, 'pipeline')
    found = getattr(pipeline, 'transforms', pipeline)
    return list(found) if isinstance(found, (list, tuple)) else []


def walk_transforms(transforms: Any) -> Iterator[Any]:
    """Go through transforms, and through those within them.

    Args:
        transforms (Any): Transforms or their configs, in lists, lists of lists or a
            ``Compose``; of a ``RandomChoice`` and the like, what it chooses from
            follows.

    Yields:
        Any: Each transform or config.
    """
    row = getattr(transforms, 'transforms', transforms)
    # Under this name a class of one's own may have anything.
    for transform in row if isinstance(row, (list, tuple)) else ():
        if isinstance(transform, (list, tuple)):
            yield from walk_transforms(transform)
        else:
            yield transform
            yield from walk_transforms(_child(transform, 'transforms'))


def image_caches(loader: Any) -> list[list]:
    """List what transforms keep of earlier images, to put it into later ones.

    Source: ``results_cache`` of mmdet's ``CachedMosaic`` and ``CachedMixUp``.

    Args:
        loader (Any): A loader, or a list or dict of such.

    Returns:
        list[list]: The kept images of each transform that keeps any; those of this
        process, as data workers have their own.
    """
    return [
        transform.results_cache
        for one in walk_loaders(loader)
        for dataset in walk_wrappers(one.dataset, every=True)
        for transform in walk_transforms(pipeline_of(dataset))
        if isinstance(getattr(transform, 'results_cache', None), list)
    ]


def length_of(sized: Any) -> int | None:
    """Count what a loader, sampler or data set gives, where it says so.

    Args:
        sized (Any): It.

    Returns:
        int, optional: Its length; None for a stream, whose loader has a ``__len__`` as
        every other one, which fails.
    """
    try:
        return len(sized)
    except TypeError:
        return None


def _child(owner: Any, name: str) -> Any:
    if isinstance(owner, Mapping):
        return owner.get(name)
    return getattr(owner, name, None)


def _is_dataset(value: Any) -> bool:
    """Whether a value is a data set or its config, and no name of one."""
    if isinstance(value, Mapping):
        # Files for inferencers hold no more of a data set than its pipeline.
        keys = ('type', 'dataset', 'datasets', 'pipeline')
        return any(key in value for key in keys)
    plain = (str, bytes, list, tuple)
    items = hasattr(value, '__getitem__') or hasattr(value, '__iter__')
    return items and not isinstance(value, plain)
