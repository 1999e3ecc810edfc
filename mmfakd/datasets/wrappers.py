# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Data sets within data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def walk_wrappers(dataset: Any) -> Iterator[Mapping]:
    """Walk from the config of a data set to the innermost that it wraps.

    Args:
        dataset (Mapping, optional): Config of a data set, for example a
            ``RepeatDataset``, ``ClassBalancedDataset`` or ``ConcatDataset``. Of several
            wrapped ones the first counts.

    Yields:
        Mapping: The configs, from the outermost in; none for None.
    """
    while isinstance(dataset, Mapping):
        yield dataset
        inner = dataset.get('dataset', dataset.get('datasets'))
        dataset = inner[0] if isinstance(inner, (list, tuple)) and inner else inner
