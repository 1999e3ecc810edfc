# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A part of a data set holds what the whole holds, not what another one held."""

from __future__ import annotations

import functools
from typing import Any


def forget_copied_objects() -> None:
    """Let each copy of a data set start without a memory of earlier ones.

    ``BaseDataset.get_subset`` of MMEngine 0.10.7 keeps the ids of what it copies in a
    default argument. An object that later gets the id of one that is gone is then
    taken for it: the pipeline of a subset may become that of another data set, or a
    number. MMEngine's maintained line, 0.10.12, has mended it.
    """
    from mmengine.dataset.base_dataset import BaseDataset

    original = BaseDataset._copy_without_annotation
    if hasattr(original, 'mmfakd') or original.__defaults__ == (None,):
        return

    @functools.wraps(original)
    def copy_without_annotation(self: Any, memo: dict[int, Any] | None = None) -> Any:
        return original(self, {} if memo is None else memo)

    copy_without_annotation.mmfakd = True  # type: ignore[attr-defined]
    BaseDataset._copy_without_annotation = copy_without_annotation
