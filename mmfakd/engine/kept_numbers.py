# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Numbers that modules of stock libraries keep where no state dict sees them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

from mmengine.dist import get_rank
from torch import nn

# Library and class -> what training changes in it.
_KEPT = {
    # The size of YOLOX's batches, which is drawn every ten iterations.
    'mmdet.BatchSyncRandomResize': ['_input_size'],
    # It drops more and more for `warmup_iters`.
    'mmdet.DropBlock': ['iter_cnt'],
    # Levels with few objects so far weigh more.
    'mmdet.DDODHead': ['cls_num_pos_samples_per_level'],
    # Dynamic R-CNN's thresholds, and what the next ones are made of.
    'mmdet.DynamicRoIHead': [
        'iou_history',
        'beta_history',
        'bbox_assigner.pos_iou_thr',
        'bbox_assigner.neg_iou_thr',
        'bbox_assigner.min_pos_iou',
        'bbox_head.loss_bbox.beta',
    ],
}


def kept_numbers(model: nn.Module) -> dict[str, Any]:
    """Read what stock modules keep beside their state dict.

    Args:
        model (nn.Module): The model.

    Returns:
        dict: Name of a module, a dot and an attribute -> number, list of such, or None.
    """
    return {
        key: _plain(getattr(owner, attribute)) for key, owner, attribute in _walk(model)
    }


def restore_numbers(model: nn.Module, processes: list[dict[str, Any]]) -> None:
    """Set what :func:`kept_numbers` has read.

    Args:
        model (nn.Module): The model.
        processes (list[dict]): Those of every process. Where there are more now, they
            are handed out again from the first.
    """
    own = processes[get_rank() % len(processes)] if processes else {}
    for key, owner, attribute in _walk(model):
        present, value = getattr(owner, attribute), own.get(key)
        if isinstance(value, list):
            if not isinstance(present, list):
                value = tuple(value)
            elif present and len(present) != len(value):
                # Of another number of levels, after --allow-changes.
                continue
        if value is not None:
            setattr(owner, attribute, value)


def numbers_of_sizes(sizes: dict[str, list[int] | None]) -> list[dict[str, Any]]:
    """Read the sizes of batches in a checkpoint of an earlier version.

    Args:
        sizes (dict): Name of each module that resizes batches -> height and width, or
            None before the first.

    Returns:
        list[dict]: What :func:`restore_numbers` takes.
    """
    return [{f'{name}._input_size': size for name, size in sizes.items()}]


def _walk(model: nn.Module) -> Iterator[tuple[str, Any, str]]:
    """Yield a key, and whose attribute is meant by it."""
    for name, module in model.named_modules():
        for path in _paths(type(module)):
            *inner, attribute = path.split('.')
            owner = reduce(lambda part, each: getattr(part, each, None), inner, module)
            if hasattr(owner, attribute):
                yield f'{name}.{path}', owner, attribute


def _paths(kind: type) -> list[str]:
    names = (f'{c.__module__.partition(".")[0]}.{c.__name__}' for c in kind.__mro__)
    return [path for name in names for path in _KEPT.get(name, [])]


def _plain(value: Any) -> Any:
    """Copy lists, and take numbers out of NumPy: checkpoints hold plain ones alone."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if hasattr(value, 'item') else value
