# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tokens of a transformer as a map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

_DEFAULTS = dict(prefix=0, suffix=0, size=None, channels_last=False)
# More class and register tokens than any published model has.
_MAX_EXTRA = 16


class TokenMap:
    r"""How a sequence of tokens becomes a map.

    .. math::
        F_{n, c, i, j} = T_{n,\; p + i w + j,\; c}

    with :math:`p` tokens before the patches, which run row by row over a grid of
    :math:`h \times w`. The map is contiguous, as many losses want it.

    Source: *An Image is Worth 16x16 Words* (arXiv 2010.11929) for the order of the
    patches and the class token; *Vision Transformers Need Registers*
    (arXiv 2309.16588) for registers.

    Args:
        cfg (Mapping): Any of

            - **prefix** (int): Number of class, distillation and register tokens
              before the patches. Defaults to 0.
            - **suffix** (int): Number of such tokens after them. Defaults to 0.
            - **size** (int | tuple[int, int], optional): Height and width of the
              grid. None is the grid that was recorded with the tokens, or else a
              square one. Defaults to None.
            - **channels_last** (bool): The record is a map already, its channels
              last, (N, H, W, C). Stands alone. Defaults to False.

    Shapes:
        - Input: (N, L, C), L = prefix + h w + suffix; with ``channels_last``
          (N, H, W, C).
        - Output: (N, C, h, w).

    Raises:
        ValueError: For other keys or values; when called, for tokens that do not fill
            the grid and for features of other dimensions.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        parsed = {**_DEFAULTS, **(cfg if isinstance(cfg, Mapping) else {})}
        size = parsed['size']
        if isinstance(size, int):
            size = (size, size)
        if (
            not isinstance(cfg, Mapping)
            or set(parsed) != set(_DEFAULTS)
            or not all(_is_count(parsed[key], 0) for key in ('prefix', 'suffix'))
            or not (size is None or is_grid(size))
            or (parsed['channels_last'] and set(cfg) != {'channels_last'})
        ):
            raise ValueError(
                f'tokens: got {cfg}; expected dict(prefix=0, suffix=0, '
                'size=None) with numbers of tokens and size=(h, w), or '
                'dict(channels_last=True).'
            )
        self.prefix, self.suffix = parsed['prefix'], parsed['suffix']
        self.size = None if size is None else tuple(size)
        self.channels_last = parsed['channels_last']

    def __call__(self, feature: Tensor, grid: Sequence[int] | None = None) -> Tensor:
        """Turn a record into a map.

        Args:
            feature (Tensor): The tokens (N, L, C), or, with ``channels_last``, the map
                (N, H, W, C).
            grid (Sequence[int], optional): Height and width recorded with the tokens.

        Returns:
            Tensor: The map (N, C, h, w).

        Raises:
            ValueError: If the tokens do not fill the grid, or the feature has other
                dimensions.
        """
        shape = tuple(feature.shape)
        if self.channels_last:
            if feature.dim() != 4:
                raise ValueError(
                    f'got a feature of shape {shape}; tokens=dict(channels_last=True) '
                    'expects maps (N, H, W, C).'
                )
            return feature.permute(0, 3, 1, 2).contiguous()
        if feature.dim() != 3:
            raise ValueError(
                f'got a feature of shape {shape}; `tokens` expects (N, L, C). A map '
                '(N, C, H, W) and a vector (N, C) need no `tokens`, a map (N, H, W, C) '
                'needs tokens=dict(channels_last=True).'
            )
        count = shape[1] - self.prefix - self.suffix
        height, width = self._grid(count, grid, shape)
        patches = feature[:, self.prefix : self.prefix + count]
        return patches.transpose(1, 2).unflatten(2, (height, width)).contiguous()

    def _grid(
        self, count: int, recorded: Sequence[int] | None, shape: tuple[int, ...]
    ) -> tuple[int, int]:
        """Height and width for a number of patches."""
        given = (
            f'{count} patches (a record of shape {shape}, prefix={self.prefix}, '
            f'suffix={self.suffix})'
        )
        grid = self.size or recorded
        if grid is not None:
            height, width = grid
            if height * width != count:
                kind = 'the recorded grid' if self.size is None else 'size'
                raise ValueError(
                    f'got {given}, but {kind} {height} x {width} holds '
                    f'{height * width}: correct `size`, `prefix` or `suffix` of '
                    f'`tokens`.{guess(shape[1])}'
                )
            return height, width
        side = math.isqrt(max(count, 0))
        if side == 0 or side * side != count:
            raise ValueError(
                f'got {given}, which fill no square: give their grid, '
                f'tokens=dict(size=(h, w), ...) with h * w = {count}, or correct '
                f'`prefix` or `suffix`.{guess(shape[1])} Tokens that a model merged or '
                'dropped have no grid: record a layer before that.'
            )
        return side, side


def guess(count: int) -> str:
    """Guess from the number of tokens how many are not of a square grid.

    Args:
        count (int): The number L of tokens.

    Returns:
        str: A sentence for a message, empty where there is nothing to say.
    """
    for extra in range(_MAX_EXTRA + 1):
        side = math.isqrt(max(count - extra, 0))
        if side > 1 and side * side == count - extra:
            return f' If the grid is square, {count} = {extra} + {side} x {side}.'
    return ''


def is_grid(value: Any) -> bool:
    """Whether a value is a height and a width.

    Args:
        value (Any): A part of a record.

    Returns:
        bool: True for two positive integers.
    """
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(_is_count(number, 1) for number in value)
    )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
