# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Maps and vectors among what a model's layers yield."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .probe import (
    Call,
    DataIdx,
    Probe,
    TensorInfo,
    tensors_of,
)

# Class, distillation and register tokens together; more has not been seen.
_MOST_EXTRA_TOKENS = 16


@dataclass(frozen=True)
class Feature:
    """A recorded feature as a map.

    Args:
        call (Call): The call that yielded it.
        info (TensorInfo): The tensor.
        data_idx (DataIdx): Its place in a tuple that the layer returned.
        channels (int): Its channels C.
        size (tuple[int, int]): Its height and width; (1, 1) for a vector.
        stride (int): Pixels of the image for one of the map, the nearest power of two.
        tokens (dict, optional): The level key ``tokens`` that makes it a map.
    """

    call: Call
    info: TensorInfo
    data_idx: DataIdx
    channels: int
    size: tuple[int, int]
    stride: int
    tokens: dict[str, Any] | None

    @property
    def non_negative(self) -> bool:
        """bool: whether it has no negative value."""
        return self.info.non_negative

    @property
    def name(self) -> str:
        """str: name of the layer, with the place in its tuple: ``'neck[1]'``."""
        path = self.data_idx if isinstance(self.data_idx, tuple) else (self.data_idx,)
        return self.call.name + ''.join(f'[{i}]' for i in path if i is not None)

    @property
    def key(self) -> tuple:
        """tuple: what must agree for two probes to have found the same feature."""
        return self.name, self.channels, self.size

    @property
    def is_vector(self) -> bool:
        """bool: whether it has one position only, as a pooled feature."""
        return self.size == (1, 1)


def find_features(probe: Probe) -> list[Feature]:
    """List all maps and vectors that a model's layers yield.

    Maps (N, C, H, W) are told from (N, H, W, C) by their aspect ratio, which is the
    image's. Tokens (N, L, C) become maps of the size that their layer returns beside
    them, or that another layer's map has, or of a square.

    Args:
        probe (Probe): A probe of the model.

    Returns:
        list[Feature]: The features in the order of the calls.
    """
    grids = _grids(probe)
    features = []
    for call in probe.calls:
        for data_idx, info in tensors_of(call.output):
            feature = _feature(call, data_idx, info, probe, grids)
            if feature is not None:
                features.append(feature)
    return features


def _feature(
    call: Call,
    data_idx: DataIdx,
    info: TensorInfo,
    probe: Probe,
    grids: set[tuple[int, int]],
) -> Feature | None:
    batch, _, *image = probe.input_shape
    shape = info.shape
    if len(shape) < 2 or shape[0] != batch:
        return None
    tokens: dict[str, Any] | None = None
    if len(shape) == 2:
        channels, size = shape[1], (1, 1)
    elif len(shape) == 4:
        if _is_grid(shape[2:], image):
            channels, size = shape[1], shape[2:]
        elif _is_grid(shape[1:3], image):
            channels, size = shape[3], shape[1:3]
            tokens = dict(channels_last=True)
        else:
            return None
    elif len(shape) == 3:
        found = _token_grid(call, data_idx, shape[1], probe, grids)
        if found is None:
            return None
        size, tokens = found
        channels = shape[2]
        if tokens is None and data_idx == 0:
            data_idx = None
    else:
        return None
    return Feature(call, info, data_idx, channels, size, _stride(size, image), tokens)


def _stride(size: Sequence[int], image: Sequence[int]) -> int:
    """The power of two that an image is divided by, rounded up, or the nearest."""
    for stride in (2**i for i in range(max(image).bit_length() + 1)):
        if all(-(-whole // stride) == part for whole, part in zip(image, size)):
            return stride
    return 2 ** round(math.log2(math.sqrt(math.prod(image) / math.prod(size))))


def _token_grid(
    call: Call,
    data_idx: DataIdx,
    length: int,
    probe: Probe,
    grids: set[tuple[int, int]],
) -> tuple[tuple[int, int], dict | None] | None:
    """Height and width of a sequence's map, and how tokens become it."""
    own = _size_beside(call.output, data_idx)
    if own is not None and math.prod(own) == length:
        # The record (tokens, (h, w)) says all.
        return own, None
    image = probe.input_shape[2:]
    extras = [(extra, 0) for extra in range(_MOST_EXTRA_TOKENS + 1)]
    if length in probe.tokens:
        extras.insert(0, probe.tokens[length])
    for exact in (True, False):
        for prefix, suffix in extras:
            patches = length - prefix - suffix
            side = math.isqrt(max(patches, 0))
            sizes = sorted(size for size in grids if math.prod(size) == patches)
            if not exact and side * side == patches and _is_grid((side, side), image):
                sizes.append((side, side))
            if patches > 1 and sizes:
                size = sizes[0]
                tokens: dict[str, Any] = dict(prefix=prefix)
                if suffix:
                    tokens['suffix'] = suffix
                if size[0] != size[1]:
                    tokens['size'] = size
                return size, tokens
    return None


def _grids(probe: Probe) -> set[tuple[int, int]]:
    """All sizes of maps that can be told without doubt."""
    image = probe.input_shape[2:]
    grids: set[tuple[int, int]] = set()
    for call in probe.calls:
        for data_idx, info in tensors_of(call.output):
            shape = info.shape
            if len(shape) == 4 and shape[0] == probe.input_shape[0]:
                for height, width in (shape[2:], shape[1:3]):
                    if _is_grid((height, width), image):
                        grids.add((height, width))
                        break
            own = _size_beside(call.output, data_idx)
            if own is not None:
                grids.add(own)
    return {size for size in grids if size != (1, 1)}


def _size_beside(output: Any, data_idx: DataIdx) -> tuple[int, int] | None:
    """The grid that a layer returned behind tokens, as (h, w) or as h, w."""
    if data_idx is None:
        return None
    *path, index = data_idx if isinstance(data_idx, tuple) else (data_idx,)
    for i in path:
        output = output[i]
    rest = output[index + 1 :]
    for pair in (rest[:1] and rest[0], rest[:2]):
        if isinstance(pair, tuple) and [type(item) for item in pair] == [int, int]:
            return pair
    return None


def _is_grid(size: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a size has the image's aspect ratio, to a pixel."""
    if tuple(size) == (1, 1):
        return True
    (height, width), (image_height, image_width) = size, image
    if height > image_height or width > image_width:
        return False
    return (
        abs(height - image_height * width / image_width) <= 1
        or abs(width - image_width * height / image_height) <= 1
    )


__all__ = ['Feature', 'find_features']
