# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a checkpoint calls the classes of its model."""

from __future__ import annotations

from collections.abc import Sequence

from .fetch import fetch_checkpoint


def trained_classes(checkpoint: str | None) -> Sequence[str]:
    """Read what a checkpoint calls the classes of its model.

    Args:
        checkpoint (str, optional): The checkpoint.

    Returns:
        Sequence[str]: The names; none where they are not known.
    """
    meta = fetch_checkpoint(checkpoint).get('meta', {}) if checkpoint else {}
    info = {**meta, **(meta.get('dataset_meta') or {})}
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
    pairs = zip(trained_classes(checkpoint), classes or ())
    for index, (theirs, ours) in enumerate(pairs):
        if str(theirs).lower() != str(ours).lower():
            return f'its checkpoint names class {index} {theirs!r}, {whose} {ours!r}'
    return None
