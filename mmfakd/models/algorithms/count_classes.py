# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How many classes a model tells apart."""

from __future__ import annotations

from typing import Any

from torch import nn

# Where mmpretrain, mmdet and mmseg keep the number; VGG and others end in their
# backbone.
_PLACES = (
    'head',
    'bbox_head',
    'roi_head.bbox_head',
    'mask_head',
    'panoptic_head',
    'decode_head',
    'backbone',
)


def count_classes(model: nn.Module) -> int | None:
    """Count the classes that the head of a model tells apart.

    Args:
        model (nn.Module): A classifier, detector or segmentor.

    Returns:
        int | None: ``num_classes`` of its head, of the first one in a cascade; 2 for a
        segmentor of one channel, which lies above a threshold or below; None where no
        part of the model says so.
    """
    for place in _PLACES:
        head: Any = model
        for name in place.split('.'):
            head = getattr(head, name, None)
        if isinstance(head, nn.ModuleList):
            head = head[0]
        count = getattr(head, 'num_classes', None)
        # Backbones without a classifier have -1.
        if isinstance(count, int) and count > 0:
            binary = place == 'decode_head' and _is_thresholded(head)
            return max(count, 2) if binary else count
    return None


def predicted_counts(model: nn.Module) -> tuple[int, ...]:
    """List how many classes a data set may have for predictions of a model to fit.

    Args:
        model (nn.Module): A classifier, detector or segmentor.

    Returns:
        tuple[int, ...]: In general the one number of :func:`count_classes`. Of a
        panoptic detector things and stuff together, then things alone where it
        predicts them as instances, too; of a segmentor of one channel 2, then the 1 of
        a data set that names the foreground alone. Empty where nothing tells.
    """
    fusion: Any = getattr(model, 'panoptic_fusion_head', None)
    if fusion is not None:
        instances = (fusion.test_cfg or {}).get('instance_on', False)
        things = (fusion.num_things_classes,) if instances else ()
        return tuple(dict.fromkeys((fusion.num_classes, *things)))
    count = None if is_panoptic(model) else count_classes(model)
    if count is None:
        return ()
    head = getattr(model, 'decode_head', None)
    named_alone = getattr(head, 'num_classes', None) == 1 and count == 2
    return (2, 1) if named_alone else (count,)


def is_panoptic(model: nn.Module) -> bool:
    """Whether a model predicts things and stuff, of which a head may know a part.

    Args:
        model (nn.Module): The model.

    Returns:
        bool: True for a detector with a head for panoptic or semantic maps.
    """
    return any(hasattr(model, f'{kind}_head') for kind in ('panoptic', 'semantic'))


def _is_thresholded(head: Any) -> bool:
    """Whether a decode head has one channel, of which no softmax is taken."""
    losses = getattr(head, 'loss_decode', None)
    losses = losses if isinstance(losses, nn.ModuleList) else [losses]
    sigmoid = any(getattr(loss, 'use_sigmoid', True) for loss in losses)
    return getattr(head, 'out_channels', None) == 1 and sigmoid
