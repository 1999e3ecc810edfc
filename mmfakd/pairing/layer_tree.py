# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The calls of a backbone's layers as a tree."""

from __future__ import annotations

from .features import Feature
from .probe import Call, Probe

_LARGEST_STRIDE = 64


class LayerTree:
    """Which layers of a backbone yield maps, from the outside in.

    A layer's children are the layers that it calls; containers that are not called
    themselves (``ModuleList``) do not count.

    Args:
        probe (Probe): A probe of the model.
        features (list[Feature]): Its features.
    """

    def __init__(self, probe: Probe, features: list[Feature]) -> None:
        self.root = next((c for c in probe.calls if c.name == 'backbone'), None)
        self.children_of: dict[tuple[str, ...], list[Feature]] = {}
        for feature in features:
            # Of small images a stage may leave one position, as a pooling does.
            if len(feature.info.shape) > 2 and feature.stride <= _LARGEST_STRIDE:
                self.children_of.setdefault(feature.call.path, []).append(feature)

    def outermost(self) -> list[Feature]:
        """List the maps that the backbone's own children yield.

        Returns:
            list[Feature]: In the order of the calls. Where just one child has parts,
            its children stand in its place.
        """
        layers = self.children(self.root) if self.root else self.children_of.get((), [])
        while True:
            composite = [f for f in layers if not f.call.is_leaf]
            if len({f.call.order for f in composite}) != 1:
                return layers
            inner = self.children(composite[0].call)
            if len(inner) < 2:
                return layers
            layers = _replace(layers, {composite[0].call.order: inner})

    def expand_stages(self, layers: list[Feature]) -> list[Feature]:
        """Open the stages whose stride changes behind their blocks.

        Args:
            layers (list[Feature]): Maps of the outermost layers.

        Returns:
            list[Feature]: The same, with the blocks of such a stage in its place.
        """
        opened = {}
        for feature in layers:
            inner = self.children(feature.call)
            blocks = [child for child in inner if child.call.weights > 1]
            several = sum(f.call is feature.call for f in layers) > 1
            if len(blocks) > 1 and not several and blocks[0].stride < feature.stride:
                opened[feature.call.order] = inner
        return _replace(layers, opened)

    def longest_row(self, layers: list[Feature]) -> list[Feature]:
        """Find the blocks of a backbone that keeps one stride.

        Args:
            layers (list[Feature]): Maps of the outermost layers.

        Returns:
            list[Feature]: The longest row of sibling layers that yield maps of one
            shape, among the outermost layers or, where there is none, among the
            children of one.
        """
        row = _longest(layers)
        if len(row) > 1:
            return row
        inner = [_longest(self.children(f.call)) for f in layers if not f.call.is_leaf]
        return max(inner, key=len, default=[])

    def children(self, call: Call) -> list[Feature]:
        """List the maps of the layers that a layer calls.

        Args:
            call (Call): The layer's call.

        Returns:
            list[Feature]: In the order of the calls.
        """
        return self.children_of.get((*call.path, call.name), [])


def _replace(layers: list[Feature], opened: dict[int, list[Feature]]) -> list[Feature]:
    kept = [f for f in layers if f.call.order not in opened]
    inner = [f for found in opened.values() for f in found]
    return sorted(kept + inner, key=lambda f: f.call.order)


def _longest(features: list[Feature]) -> list[Feature]:
    """The longest row of siblings with parts that yield maps of one shape."""
    rows: dict[tuple, list[Feature]] = {}
    for feature in features:
        parent, _, number = feature.call.name.rpartition('.')
        if number.isdigit() and not feature.call.is_leaf:
            shape = (parent, feature.data_idx, feature.channels, feature.size)
            rows.setdefault(shape, []).append(feature)
    return max(rows.values(), key=len, default=[])
