# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Maps and vectors among what a model's layers yield."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .probe import Call, DataIdx, Probe, TensorInfo, tensors_of

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
        size (tuple[int, ...]): Its height and width; (1, 1) for a vector.
        stride (int): Pixels of the image for one of the map, the nearest power of two.
        tokens (dict, optional): The level key ``tokens`` that makes it a map.
    """

    call: Call
    info: TensorInfo
    data_idx: DataIdx
    channels: int
    size: tuple[int, ...]
    stride: int
    tokens: dict[str, Any] | None

    @property
    def name(self) -> str:
        """str: name of the layer, with the place in its tuple: ``'neck[1]'``."""
        path = self.data_idx if isinstance(self.data_idx, tuple) else (self.data_idx,)
        return self.call.name + ''.join(f'[{i}]' for i in path if i is not None)

    @property
    def level(self) -> str | dict[str, Any]:
        """Union[str, dict]: as a distiller takes it, a layer's name or more."""
        level: dict[str, Any] = dict(recorder=self.call.name)
        if self.call.index:
            level['record_idx'] = self.call.index
        if self.data_idx is not None:
            level['data_idx'] = self.data_idx
        if self.tokens is not None:
            level['tokens'] = self.tokens
        return level if len(level) > 1 else self.call.name

    @property
    def key(self) -> tuple:
        """tuple: what must agree for two probes to have found the same feature."""
        return self.name, self.channels, self.size

    @property
    def needs_grid(self) -> bool:
        """bool: whether it is a map by the grid of the probed images alone.

        Tokens whose record holds their grid are maps for images of any size.
        """
        return self.tokens is not None and 'prefix' in self.tokens

    @property
    def is_vector(self) -> bool:
        """bool: whether it has one position only, as a pooled feature."""
        return self.size == (1, 1)


def find_features(probe: Probe) -> list[Feature]:
    """List all maps and vectors that a model's layers yield.

    Maps (N, C, H, W) are told from (N, H, W, C) by their aspect ratio, which is the
    image's; where both fit, as for (N, 96, 96, 96), by what layers of the same class
    yield elsewhere. Tokens (N, L, C) become maps of the size that their layer returns
    beside them, or that another layer's map has, or of a square.

    Args:
        probe (Probe): A probe of the model.

    Returns:
        list[Feature]: The features in the order of the calls.
    """
    finder = _Finder(probe)
    found = (finder.feature(*place) for place in finder.places)
    return [feature for feature in found if feature is not None]


class _Finder:
    """Makes features of the tensors of a probe."""

    def __init__(self, probe: Probe) -> None:
        self.batch, _, *self.image = probe.input_shape
        self.tokens = probe.tokens
        self.places = [
            (call, data_idx, info)
            for call in probe.calls
            for data_idx, info in tensors_of(call.output)
        ]
        # All sizes of maps that can be told without doubt.
        self.grids: set[tuple[int, ...]] = set()
        for call, data_idx, info in self.places:
            if len(info.shape) == 4 and info.shape[0] == self.batch:
                sizes = (info.shape[2:], info.shape[1:3])
                grids = [size for size in sizes if _is_grid(size, self.image)]
                self.grids.update(grids[:1])
            own = _size_beside(call.output, data_idx)
            if own is not None:
                self.grids.add(own)
        self.grids.discard((1, 1))
        self.channels_last = self._find_channels_last()

    def _find_channels_last(self) -> set[str]:
        """Classes of layers that yield maps (N, H, W, C), and none that is another."""
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for call, _, info in self.places:
            if len(info.shape) == 4:
                first, last = self._fits(info.shape)
                if first != last:
                    found[last].add(call.kind)
        return found[True] - found[False]

    def _fits(self, shape: Sequence[int]) -> tuple[bool, bool]:
        """Whether a map may have its channels first, and whether last."""
        first, last = (_is_grid(s, self.image) for s in (shape[2:], shape[1:3]))
        return first, last

    def feature(
        self, call: Call, data_idx: DataIdx, info: TensorInfo
    ) -> Feature | None:
        shape, tokens = info.shape, None
        size: tuple[int, ...] = (1, 1)
        if len(shape) not in (2, 3, 4) or shape[0] != self.batch:
            return None
        if len(shape) == 2:
            channels = shape[1]
        elif len(shape) == 3:
            found = self.token_grid(call, data_idx, shape[1])
            if found is None:
                return None
            channels, (size, tokens) = shape[2], found
            if tokens is None and data_idx == 0:
                data_idx = None
        else:
            first, last = self._fits(shape)
            if first and not (last and call.kind in self.channels_last):
                channels, size = shape[1], shape[2:]
            elif last:
                channels, size, tokens = shape[3], shape[1:3], dict(channels_last=True)
            else:
                return None
        stride = _stride(size, self.image)
        return Feature(call, info, data_idx, channels, size, stride, tokens)

    def token_grid(
        self, call: Call, data_idx: DataIdx, length: int
    ) -> tuple[tuple[int, ...], dict | None] | None:
        """Height and width of a sequence's map, and how tokens become it."""
        own = _size_beside(call.output, data_idx)
        if own is not None and math.prod(own) == length:
            # The record (tokens, (h, w)) says all.
            return own, None
        extras = [(extra, 0) for extra in range(_MOST_EXTRA_TOKENS + 1)]
        if length in self.tokens:
            extras.insert(0, self.tokens[length])
        for exact in (True, False):
            for prefix, suffix in extras:
                patches = length - prefix - suffix
                side = math.isqrt(max(patches, 0))
                sizes = sorted(s for s in self.grids if math.prod(s) == patches)
                square = side * side == patches and _is_grid((side, side), self.image)
                if square and not exact:
                    sizes.append((side, side))
                if patches > 1 and sizes:
                    tokens: dict[str, Any] = dict(prefix=prefix)
                    if suffix:
                        tokens['suffix'] = suffix
                    if sizes[0][0] != sizes[0][1]:
                        tokens['size'] = sizes[0]
                    return sizes[0], tokens
        return None


def _stride(size: Sequence[int], image: Sequence[int]) -> int:
    """The power of two that an image is divided by, rounded up, or the nearest."""
    for stride in (2**i for i in range(max(image).bit_length() + 1)):
        if all(-(-whole // stride) == part for whole, part in zip(image, size)):
            return stride
    return 2 ** round(math.log2(math.sqrt(math.prod(image) / math.prod(size))))


def _size_beside(output: Any, data_idx: DataIdx) -> tuple[int, ...] | None:
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
    (height, width), (image_height, image_width) = size, image
    if height > image_height or width > image_width:
        return False
    return (
        height == width == 1
        or abs(height - image_height * width / image_width) <= 1
        or abs(width - image_width * height / image_height) <= 1
    )
