# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One meaning of the meta information of data sets that are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def first_meta(found: Any) -> dict:
    """Read meta information that may be that of several data sets.

    mmdet's ``ConcatDataset`` of data sets that differ, if only in the palette, has a
    list of theirs, and checkpoints get it. A label is a number, one class in all of
    them, so it is called as in the first.

    Args:
        found (Any): The ``metainfo`` of a data set, or the ``dataset_meta`` of a
            checkpoint.

    Returns:
        dict: The first of a list or tuple, a mapping itself; empty for anything else.

    Examples:
        >>> from mmfakd.checkpoints.first_meta import first_meta
        >>> first_meta([dict(classes=('a', 'b')), dict(classes=('a', 'c'))])
        {'classes': ('a', 'b')}
        >>> first_meta(None)
        {}
    """
    if isinstance(found, (list, tuple)) and found:
        found = found[0]
    return found if isinstance(found, Mapping) else {}  # type: ignore[return-value]
