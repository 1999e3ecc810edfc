# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The levels of a segmentor: what its decode head gets, and its map of logits."""

from __future__ import annotations

from collections.abc import Collection

from .features import Feature, find_features
from .levels import MOST_STAGES, Levels, choose_classifier_levels, returned
from .probe import Probe

# The decode head gets what the last of them yields.
_PARTS = ('neck', 'backbone')


def choose_segmentor_levels(
    probe: Probe, trained: Collection[tuple] | None = None
) -> Levels:
    """Choose the maps that a segmentor's decode head gets.

    They are those of the neck or, where there is none, of the backbone, and several may
    have one stride: a dilated ResNet yields strides 4, 8, 8 and 8. Of more than four
    the four of the largest strides stay. A backbone that returns one map, or in
    training others than in testing (PIDNet), offers its stages.

    Args:
        probe (Probe): A probe of the segmentor.
        trained (Collection[tuple], optional): Keys of the features that a training
            step reaches. Defaults to None, all of them.

    Returns:
        Levels: Its levels.
    """
    features = [f for f in find_features(probe) if trained is None or f.key in trained]
    for part in _PARTS:
        found = [f for f in features if f.call.name == part and not f.is_vector]
        last = max((f.call.order for f in found), default=None)
        maps = [f for f in found if f.call.order == last]
        if len(maps) > 1:
            # A decoder's maps may come deepest first.
            maps.sort(key=lambda f: f.stride)
            many = [(f, 'of a fifth map and more') for f in maps[:-MOST_STAGES]]
            return Levels(maps[-MOST_STAGES:], others=many)
    levels = choose_classifier_levels(probe, trained)
    levels.pooled = None
    return levels


def find_logit_map(probe: Probe, classes: int) -> Feature | None:
    """Find the layer that yields a segmentor's map of logits.

    Args:
        probe (Probe): A probe of the segmentor with its head.
        classes (int): Channels of the map.

    Returns:
        Feature | None: The last convolution of the decode head, or of the last in a
        cascade, with that many channels, whose map the model returns, or brings to
        another size; None where logits are computed otherwise. Of a cascade that
        refines points of a map (PointRend) it is the one that yields the map.
    """
    logits = returned(probe)
    heads = [c for c in probe.calls if c.name.startswith('decode_head.')]
    weighted = [call for call in heads if call.is_leaf and call.weights]
    found = [
        f
        for f in find_features(probe)
        if f.call in weighted
        and len(f.info.shape) == 4
        and f.data_idx is None
        and f.tokens is None
        and f.channels == classes
        and (
            f.info.id in logits
            or f.call is weighted[-1]
            or f.call.name.split('.')[1].isdigit()
        )
    ]
    return found[-1] if found else None
