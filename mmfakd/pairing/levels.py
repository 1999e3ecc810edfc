# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The levels of one model: stages and pooled feature, or the maps of a neck."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from .features import Feature, find_features
from .layer_tree import LayerTree
from .probe import Call, Probe, tensors_of

MOST_STAGES = 4
_PARTS = ('backbone', 'neck')
# Layers that hand on a vector.
_PASSING = ('Dropout', 'Flatten', 'Identity')


@dataclass
class Levels:
    """What one model offers for distillation.

    Args:
        stages (list[Feature]): Maps, shallow to deep, one for each stride; or, where
            ``blocks`` says so, the model's blocks, which all have the same size.
        pooled (Feature, optional): The vector that the head classifies.
        blocks (bool): Whether ``stages`` are blocks of one size, any of which may do.
        is_neck (bool): Whether ``stages`` are the maps of a detector's neck.
        others (list[tuple[Feature, str]]): Maps that would do, and why they are left
            out.
    """

    stages: list[Feature]
    pooled: Feature | None = None
    blocks: bool = False
    is_neck: bool = False
    others: list[tuple[Feature, str]] = field(default_factory=list)

    @property
    def all(self) -> list[Feature]:
        """list[Feature]: stages and pooled feature."""
        return [*self.stages, *([] if self.pooled is None else [self.pooled])]


def choose_classifier_levels(
    probe: Probe, trained: Collection[tuple] | None = None
) -> Levels:
    """Choose the stage outputs and the pooled feature of a classifier.

    For each stride it is the last of the backbone's layers that yields a map. Layers
    are taken from outside: a stage rather than a block in it, unless the stage changes
    its stride behind its blocks. Where a stride has others, single convolutions
    (before the pooling, in stems) do not count. The stem, which is the first layer, is
    left out, and of more than four strides the four deepest stay. A backbone that
    keeps one stride offers all of its blocks.

    Args:
        probe (Probe): A probe of the classifier.
        trained (Collection[tuple], optional): Keys of the features that a training
            step reaches, see :attr:`Feature.key`. Defaults to None, all of them.

    Returns:
        Levels: Its levels.
    """
    features = find_features(probe)
    # A frozen stem is the stem all the same.
    outermost = LayerTree(probe, features).outermost()
    stem = next((f.call for f in outermost if f.call.weights), None)
    features = [f for f in features if trained is None or f.key in trained]
    tree = LayerTree(probe, features)
    pooled = _pooled(features, probe)
    layers = tree.outermost()
    if len({f.stride for f in layers if not f.call.is_leaf}) < 2:
        blocks = tree.longest_row(layers)
        if len(blocks) > 1:
            return Levels(blocks, pooled, blocks=True)
    layers = tree.expand_stages(layers)
    stages, others = _stages(layers, stem)
    many = [(f, 'of a fifth stride and more') for f in stages[:-MOST_STAGES]]
    return Levels(stages[-MOST_STAGES:], pooled, others=many + others)


def choose_detector_levels(
    probe: Probe, trained: Collection[tuple] | None = None
) -> Levels:
    """Choose the maps of a detector's neck.

    Args:
        probe (Probe): A probe of the detector.
        trained (Collection[tuple], optional): Keys of the features that a training
            step reaches. Defaults to None, all of them.

    Returns:
        Levels: The maps that the neck yields, shallow to deep; none where the
        detector has no neck or its neck yields no maps.
    """
    necks = [f for f in find_features(probe) if f.call.name == 'neck']
    last = max((f.call.order for f in necks), default=None)
    maps = [f for f in necks if f.call.order == last]
    maps = [f for f in maps if trained is None or f.key in trained]
    maps.sort(key=lambda f: (f.stride, -math.prod(f.size)))
    return Levels(maps, is_neck=True)


def find_logits(probe: Probe) -> Feature | None:
    """Find the layer that yields a classifier's logits.

    Args:
        probe (Probe): A probe of the classifier with its head.

    Returns:
        Feature | None: The innermost layer that returns just what the model returns.
    """
    logits = returned(probe)
    for feature in find_features(probe):
        if feature.data_idx is None and feature.info.id in logits:
            return feature
    return None


def returned(probe: Probe) -> set[int]:
    """List the tensors that a model returns.

    Args:
        probe (Probe): A probe of the model with its head.

    Returns:
        set[int]: Their numbers, see :class:`~mmfakd.pairing.probe.TensorInfo`.
    """
    return {info.id for _, info in tensors_of(probe.output)} - {-1}


def _stages(
    layers: list[Feature], stem: Call | None
) -> tuple[list[Feature], list[tuple[Feature, str]]]:
    """The last map of each stride, shallow to deep, and others that would do."""
    composite = [f for f in layers if not f.call.is_leaf]
    if len({f.stride for f in composite if f.call is not stem}) > 1:
        layers = composite
    by_stride: dict[int, list[Feature]] = {}
    for feature in layers:
        by_stride.setdefault(feature.stride, []).append(feature)
    stages, others = [], []
    for _, found in sorted(by_stride.items()):
        last = _last([f for f in found if f.call.weights > 1] or found)
        if last.call is stem and len(by_stride) > 1:
            others.append((last, 'the stem'))
            continue
        stages.append(last)
        if _last(found) is not last:
            others.append((_last(found), 'a single convolution'))
    return stages, others


def _last(features: list[Feature]) -> Feature:
    """The feature of the last call; of several maps of one call the first."""
    order = features[-1].call.order
    return next(f for f in features if f.call.order == order)


def _pooled(features: list[Feature], probe: Probe) -> Feature | None:
    """The vector that backbone and neck end in, or the last before the logits."""
    parts = [f for f in features if f.call.name.partition('.')[0] in _PARTS]
    ends = [f for f in parts if f.call.name in _PARTS]
    if not ends:
        return None
    end = _classified(ends, probe)
    if not end.is_vector:
        return None
    logits = returned(probe)
    vectors = [f for f in parts if f.is_vector and f.call.kind not in _PASSING]
    if end.info.id in logits:
        before = [f for f in vectors if f.info.id not in logits]
        return before[-1] if before else None
    # The layer that yields the vector rather than the part that wraps it in a tuple.
    plain = [
        f
        for f in vectors
        if f.data_idx is None
        and f.call.path == (end.call.name,)
        and f.channels == end.channels
    ]
    if not plain:
        return end
    # One pooling may serve several maps, one call each.
    calls = [f for f in plain if f.call.name == plain[-1].call.name]
    index = end.data_idx
    several = isinstance(index, int) and len(calls) == len(end.call.output)
    return calls[index] if several else plain[-1]  # type: ignore[index]


def _classified(ends: list[Feature], probe: Probe) -> Feature:
    """Of what backbone or neck return last, the part that the head classifies."""
    order = max(f.call.order for f in ends)
    ends = [f for f in ends if f.call.order == order]
    for call in probe.calls:
        if call.name.startswith('head.') and call.weights and call.entered:
            entered = [f for f in ends if f.info.id in call.entered]
            if entered:
                return entered[0]
    # As heads of mmpretrain do, of several the last; of the parts of a part the first.
    first = [
        f.data_idx[0] if isinstance(f.data_idx, tuple) else f.data_idx for f in ends
    ]
    return ends[first.index(first[-1])]
