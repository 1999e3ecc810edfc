# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How many classes a model tells apart."""

from __future__ import annotations

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
    """Count the classes that a classifier, detector or segmentor predicts.

    Args:
        model (nn.Module): The model.

    Returns:
        int | None: ``num_classes`` of its head, of the first one in a cascade; None
        where no part of the model says so.
    """
    for place in _PLACES:
        head: object = model
        for name in place.split('.'):
            head = getattr(head, name, None)
        if isinstance(head, nn.ModuleList):
            head = head[0]
        count = getattr(head, 'num_classes', None)
        # Backbones without a classifier have -1.
        if isinstance(count, int) and count > 0:
            return count
    return None
