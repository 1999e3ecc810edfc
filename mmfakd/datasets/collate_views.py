# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Several views of an image in one batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.dataset import default_collate

from mmfakd.registry import FUNCTIONS


@FUNCTIONS.register_module()
def collate_views(data_batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put the views of a ``MultiView`` pipeline into one batch, view by view.

    A model then takes them as any batch: the first views of all images, then their
    second ones in the same order, each with its labels.

    Args:
        data_batch (Sequence[dict]): Of each image, ``inputs`` with a list of V tensors
            (C, H, W), and ``data_samples``.

    Returns:
        dict: ``inputs``, (V * N, C, H, W), and V * N ``data_samples``.

    Raises:
        ValueError: Where ``inputs`` is no list of views, or images have different
            numbers of them.
    """
    views = [sample['inputs'] for sample in data_batch]
    if not all(isinstance(v, (list, tuple)) and len(v) == len(views[0]) for v in views):
        given = sorted({type(v).__name__ for v in views})
        raise ValueError(
            f'collate_views got inputs of type {", ".join(given)}; expected the same '
            "number of views of every image: let dict(type='MultiView', ...) come "
            "before dict(type='PackInputs') in the pipeline."
        )
    batch = []
    for same_view in zip(*views):
        for sample, view in zip(data_batch, same_view):
            # A model may write into a sample, as those of mixup do.
            data_sample = copy.copy(sample['data_samples'])
            batch.append({**sample, 'inputs': view, 'data_samples': data_sample})
    return default_collate(batch)
