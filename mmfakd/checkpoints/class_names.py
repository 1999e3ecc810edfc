# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a checkpoint calls the classes of its model."""

from __future__ import annotations

from collections.abc import Sequence

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
    return info.get('classes') or info.get('CLASSES') or ()


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
    renamed = first_renamed(trained_classes(checkpoint), classes or ())
    if renamed is None:
        return None
    index, theirs, ours = renamed
    return f'its checkpoint names class {index} {theirs!r}, {whose} {ours!r}'


def first_renamed(
    one: Sequence[str], other: Sequence[str]
) -> tuple[int, str, str] | None:
    """Find the first class that two lists call by different names.

    Args:
        one (Sequence[str]): Names of classes, upper or lower case.
        other (Sequence[str]): Those of the same classes; it may be shorter or longer.

    Returns:
        tuple[int, str, str] | None: Number of the class, and its two names; None where
        there is none.
    """
    for index, (first, second) in enumerate(zip(one, other)):
        if str(first).lower() != str(second).lower():
            return index, first, second
    return None
