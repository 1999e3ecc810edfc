# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a checkpoint calls the classes of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .fetch import fetch_checkpoint
from .first_meta import first_meta


def trained_classes(checkpoint: str | None) -> Sequence[str]:
    """Read what a checkpoint calls the classes of its model.

    Args:
        checkpoint (str, optional): The checkpoint.

    Returns:
        Sequence[str]: The names; none where they are not known.
    """
    meta = (fetch_checkpoint(checkpoint).get('meta') or {}) if checkpoint else {}
    info = {**meta, **first_meta(meta.get('dataset_meta'))}
    given = info.get('classes')
    return listed_names(info.get('CLASSES') if given is None else given)


def listed_names(classes: Any) -> Sequence[str]:
    """List the names of classes in the order of their labels.

    Args:
        classes (Any): What a data set or a checkpoint has: a list, tuple or array, or
            a text, which is the name of a single class.

    Returns:
        Sequence[str]: The names; none where their order is not known, as of a set.
    """
    if isinstance(classes, str):
        return [classes]
    if isinstance(classes, np.ndarray):
        return classes.tolist()
    return classes if isinstance(classes, (list, tuple)) else ()


def renamed_classes(
    checkpoint: str | None,
    classes: Sequence[str] | None,
    whose: str = 'the validation set',
) -> str | None:
    """Compare the classes' names of a checkpoint with those of a data set.

    Args:
        checkpoint (str, optional): The teacher's checkpoint.
        classes (Sequence[str], optional): The classes of the data set.
        whose (str): What the data set is called. Defaults to ``'the validation set'``.

    Returns:
        str | None: The first difference, in words; None where there is none or names
        are not known.
    """
    renamed = first_renamed(trained_classes(checkpoint), classes)
    if renamed is None:
        return None
    index, theirs, ours = renamed
    return f'its checkpoint names class {index} {theirs!r}, {whose} {ours!r}'


def first_renamed(one: Any, other: Any) -> tuple[int, str, str] | None:
    """Find the first class that two lists call by different names.

    Args:
        one (Any): Names of classes, upper or lower case, see :func:`listed_names`.
        other (Any): Those of the same classes; it may be shorter or longer.

    Returns:
        tuple[int, str, str] | None: Number of the class, and its two names; None where
        there is none.
    """
    for index, (first, second) in enumerate(zip(*map(listed_names, (one, other)))):
        if str(first).lower() != str(second).lower():
            return index, first, second
    return None
