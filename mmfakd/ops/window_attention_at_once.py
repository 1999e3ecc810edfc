# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Attention over windows in as few operations as can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .maps import resize

# Numbers of a map that are worked on at a time, each with all positions of its window.
BLOCK = 2**21


class WindowAttentionAtOnce(torch.autograd.Function):
    """Attention over windows, channel by channel, all positions at once.

    Devices that wait for launches are handed few operations: shifted maps are a view
    of the padded one, their sum is one folding, and queries of smaller maps are
    repeated by a view. What holds all positions of all windows is there twice, for
    some samples at a time. The backward pass computes the weights again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key_value: Tensor,
        row_offset: Tensor,
        column_offset: Tensor,
    ) -> Tensor:
        """Let queries attend to keys.

        Args:
            ctx (Any): Context of autograd.
            query (Tensor): Queries (N, C, H', W'); for it and the others see
                :func:`~mmfakd.ops.window_attention.window_attention`.
            key_value (Tensor): Keys, then values, (N, 2 C, H, W).
            row_offset (Tensor): Offsets of the keys by row, (C / 2, size).
            column_offset (Tensor): Those by column, (C / 2, size).

        Returns:
            Tensor: Averaged values (N, C, H, W).
        """
        inputs = query, key_value, row_offset, column_offset
        out = key_value.new_empty(*query.shape[:2], *key_value.shape[2:])
        for part, windows in _parts(*inputs):
            weights = windows.weigh()
            weights.mul_(windows.values)
            torch.sum(weights, (2, 3), out=out[part])
        ctx.save_for_backward(*inputs, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors of ``forward``."""
        *inputs, out = ctx.saved_tensors
        found = []
        for part, windows in _parts(*inputs):
            found.append(windows.backward(out[part], grad[part]))
        if not found:
            return tuple(map(torch.zeros_like, inputs))
        if len(found) == 1:
            return found[0]
        queries, keys_values, rows, columns = zip(*found)
        return torch.cat(queries), torch.cat(keys_values), sum(rows), sum(columns)


def fits_at_once(key_value: Tensor) -> bool:
    """Tell whether a sample is small enough to be worked on as a whole.

    Args:
        key_value (Tensor): Keys and values (N, 2 C, H, W).

    Returns:
        bool: Whether it is.
    """
    return key_value.shape[1:].numel() <= 2 * BLOCK


def _parts(
    query: Tensor, key_value: Tensor, row_offset: Tensor, column_offset: Tensor
) -> Iterator[tuple[slice, _Windows]]:
    """Cut the samples into equal parts of about a block."""
    size = row_offset.shape[1]
    rows = row_offset[:, :, None].expand(-1, -1, size)
    columns = column_offset[:, None].expand(-1, size, -1)
    offsets = torch.cat([rows, columns])[..., None, None]
    n, each = len(query), key_value.shape[1:].numel() // 2
    most = max(1, min(n, BLOCK // max(1, each)))
    step = -(-n // -(-n // most)) if n else 1
    for start in range(0, n, step):
        part = slice(start, start + step)
        yield part, _Windows(query[part], key_value[part], offsets, size)


class _Windows:
    """The windows of some samples.

    Attributes:
        query (Tensor): Queries, as they meet the positions of their windows.
        keys (Tensor): Keys of these, (N, C, size, size, H, W), a view.
        values (Tensor): Values of these, likewise.
        offsets (Tensor): Offsets (C, size, size, 1, 1).
    """

    def __init__(
        self, query: Tensor, key_value: Tensor, offsets: Tensor, size: int
    ) -> None:
        self.size, self.shape, self.small = size, key_value.shape[2:], query.shape[2:]
        # How often a query stands in a row, and in a column; 1 once it is resized.
        self.repeats = self._count_repeats()
        if self.repeats is None:
            query = resize(query, self.shape)
        padded = F.pad(key_value, (size // 2,) * 4)
        windows = padded.unfold(2, size, 1).unfold(3, size, 1)
        windows = windows.permute(0, 1, 4, 5, 2, 3)
        self.keys, self.values = windows.chunk(2, 1)
        self.query, self.offsets = query[:, :, None, None], offsets
        if self.repeats is not None:
            self.query = self.query[..., None, :, None]

    def weigh(self) -> Tensor:
        """Compute the weights of all positions, (N, C, size, size, H, W)."""
        scores = self._shifted_keys(self.keys.new_empty(self.keys.shape))
        self._by_query(scores).mul_(self.query)
        return scores.flatten(2, 3).softmax(2).view_as(scores)

    def backward(self, out: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        """Compute the gradients of queries, keys with values, and offsets."""
        weights = self.weigh()
        scores = weights * grad[:, :, None, None]
        grad_value = self._fold(scores)
        # Through the softmax: w_i (g v_i - sum_j w_j g v_j) = w_i g (v_i - out)
        torch.sub(self.values, out[:, :, None, None], out=weights)
        weights.mul_(scores)
        self._shifted_keys(scores).mul_(weights)
        if self.repeats is None:
            grad_query = torch.ops.aten.upsample_nearest2d_backward(
                scores.sum((2, 3)), self.shape, (*scores.shape[:2], *self.small)
            )
        else:
            grad_query = self._by_query(scores).sum((2, 3, 5, 7))
        self._by_query(weights).mul_(self.query)
        grad_key = self._fold(weights)
        half = weights.shape[1] // 2
        rows = weights[:, :half].sum((0, 3, 4, 5))
        columns = weights[:, half:].sum((0, 2, 4, 5))
        return grad_query, torch.cat([grad_key, grad_value], 1), rows, columns

    def _count_repeats(self) -> tuple[int, int] | None:
        (height, width), (rows, columns) = self.shape, self.small
        if height % rows or width % columns:
            return None
        return height // rows, width // columns

    def _shifted_keys(self, out: Tensor) -> Tensor:
        return torch.add(self.keys, self.offsets, out=out)

    def _by_query(self, windows: Tensor) -> Tensor:
        """View positions (.., H, W) as those of queries, (.., H', r, W', r')."""
        if self.repeats is None:
            return windows
        (rows, columns), (down, right) = self.small, self.repeats
        return windows.unflatten(5, (columns, right)).unflatten(4, (rows, down))

    def _fold(self, windows: Tensor) -> Tensor:
        """Add up what stands at the positions of windows where these lie."""
        size, shape = self.size, list(self.shape)
        return torch.ops.aten.col2im(
            windows.flatten(4).flatten(1, 3),
            *(shape, [size, size], [1, 1], [size // 2] * 2, [1, 1]),
        )
