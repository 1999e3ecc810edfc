# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The attention of LocalCrossAttention, with a backward pass of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pixels worked on at a time. On CPUs, for each thread, so few that the weights of all
# positions of their windows stay in a cache, and so many that calls cost little.
_CPU_BLOCK = 3 * 2**13
_GPU_BLOCK = 2**21


class WindowAttention(torch.autograd.Function):
    """Attention over windows, channel by channel.

    The work goes block by block, some samples and some channels of theirs at a time,
    so that what is as large as all positions of all windows never goes through main
    memory. The backward pass computes the weights again, which takes less time than
    storing them.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key_value: Tensor, offset: Tensor, size: int
    ) -> Tensor:
        """Let queries attend to keys.

        Args:
            ctx (Any): Context of autograd.
            query (Tensor): Queries (N, C, H, W), with scores to base two: divided by
                the natural logarithm of two.
            key_value (Tensor): Keys, then values, (N, 2 C, H, W).
            offset (Tensor): Offsets of the keys, (C, size): one per row of the
                window in the first half of the channels, one per column in the
                second.
            size (int): Side of the window.

        Returns:
            Tensor: Values, averaged by softmax(query * (key + offset)), (N, C, H, W).
        """
        ctx.size = size
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        for part, block in _blocks(query, offset, size):
            block.maps(block.query).copy_(query[part])
            block.maps(block.key_value).copy_(key_value[part])
            block.attend()
            out[part].copy_(block.maps(block.out))
        ctx.save_for_backward(query, key_value, offset, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``query``, ``key_value`` and ``offset``."""
        query, key_value, offset, out = ctx.saved_tensors
        grad_query, grad_key_value = (
            torch.empty(z.shape, dtype=z.dtype, device=z.device)
            for z in (query, key_value)
        )
        grad_offset = torch.zeros_like(offset)
        for part, block in _blocks(query, offset, ctx.size, grad_offset):
            block.maps(block.query).copy_(query[part])
            block.maps(block.key_value).copy_(key_value[part])
            block.maps(block.out).copy_(out[part])
            block.maps(block.grad).copy_(grad[part])
            block.backward()
            grad_query[part].copy_(block.maps(block.grad_query))
            grad_key_value[part].copy_(block.maps(block.grad_key_value))
        return grad_query, grad_key_value, grad_offset, None


def plain_window_attention(
    query: Tensor, key_value: Tensor, offset: Tensor, size: int
) -> Tensor:
    """The function of WindowAttention in operations that compilers trace and fuse.

    Args:
        query (Tensor): As in :meth:`WindowAttention.forward`, and so are the others.
        key_value (Tensor): See there.
        offset (Tensor): See there.
        size (int): See there.

    Returns:
        Tensor: As there.
    """
    channels, height, width = query.shape[1:]
    half = channels // 2
    padded = F.pad(key_value, (size // 2,) * 4)
    windows, offsets = [], []
    for i in range(size):
        for j in range(size):
            windows.append(padded[..., i : i + height, j : j + width])
            offsets.append(torch.cat([offset[:half, i], offset[half:, j]]))
    keys, values = torch.stack(windows).split(channels, 2)
    keys = keys + torch.stack(offsets)[:, None, :, None, None]
    weights = (query * keys * math.log(2)).softmax(0)
    return (weights * values).sum(0)


def _blocks(
    query: Tensor, offset: Tensor, size: int, grad_offset: Tensor | None = None
) -> Iterator[tuple[slice, _Block]]:
    """Cut the samples into blocks: the slices, and the memory to work on them."""
    n, channels, height, width = query.shape
    numel = _GPU_BLOCK
    if query.device.type == 'cpu':
        numel = _CPU_BLOCK * torch.get_num_threads()
    margin = size // 2
    samples = _share(n, numel, channels // 2 * (height + margin) * (width + margin))
    block = _Block((channels, height, width), numel, offset, size, grad_offset)
    for start in range(0, n, samples):
        block.resize(min(samples, n - start))
        yield slice(start, start + block.samples), block


def _share(total: int, numel: int, each: int) -> int:
    """How many things to take at a time: equal shares with about ``numel`` pixels."""
    most = max(1, min(total, round(numel / each)))
    return -(-total // -(-total // most)) if total else 1


class _Block:
    """Memory for some samples at a time.

    Maps lie one after another, channel by channel, and each of them row by row, with
    a margin of zeros behind every row and behind every map. So the pixel that is some
    rows and columns away is a fixed number of elements away, for all pixels alike: a
    shifted map is a mere slice of the memory, and contiguous. Margins attend as well,
    which nobody reads, and nothing comes back from them, since queries and gradients
    are zero there. What holds all positions of a window holds them for one channel
    after another: so threads, which share the channels, find in their caches what
    they left there.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        numel: int,
        offset: Tensor,
        size: int,
        grad_offset: Tensor | None,
    ) -> None:
        self.channels, self.height, self.width = shape
        self.numel, self.size, self.samples = numel, size, 0
        self.offset, self.grad_offset = offset, grad_offset
        self.columns = self.width + size // 2
        # Reach of a window in memory.
        self.halo = size // 2 * self.columns + size // 2
        self.chunks: list[_Chunk] = []

    def resize(self, samples: int) -> None:
        """Make room for a number of samples."""
        if samples == self.samples:
            return
        # Views of the old memory first, for it to be freed.
        self.chunks = []
        self.samples = samples
        self.length = length = samples * (self.height + self.size // 2) * self.columns
        zeros, empty = self.offset.new_zeros, self.offset.new_empty
        self.query, self.out = zeros(2, self.channels, length)
        self.padded = zeros(2 * self.channels * length + 2 * self.halo)
        inner = self.padded[self.halo : self.padded.numel() - self.halo]
        self.key_value = inner.view(-1, length)

        half = self.channels // 2
        count = half if samples > 1 else _share(half, self.numel, length)
        self.keys = empty(count, self.size, length + 2 * self.halo)
        self.share = empty(count, self.size, self.size, length)
        self.top, self.total = empty(2, count, 1, 1, length)
        if self.grad_offset is not None:
            self.grad = zeros(self.channels, length)
            self.grad_query = empty(self.channels, length)
            self.grad_key_value = empty(2 * self.channels, length)
            # For each channel so many that the last position has room.
            spread = self.size**2 * (length + self.halo) + self.halo
            self.spread = zeros(count, spread)
        self.chunks = [
            _Chunk(self, start, min(start + count, first + half), start >= half)
            for first in (0, half)
            for start in range(first, first + half, count)
        ]

    def maps(self, feature: Tensor) -> Tensor:
        """The pixels of (C, length) without margins, as (N, C, H, W)."""
        maps = feature.view(feature.shape[0], self.samples, -1, self.columns)
        return maps[:, :, : self.height, : self.width].transpose(0, 1)

    def attend(self) -> None:
        """Compute the output from queries, keys and values."""
        for chunk in self.chunks:
            chunk.attend()

    def backward(self) -> None:
        """Compute all gradients, given the output's, too; overwrites what is given."""
        for chunk in self.chunks:
            chunk.backward()


class _Chunk:
    """Channels ``start`` to ``stop`` of a block, which all have offsets of one kind.

    The views are made once, because the memory serves one block after another.
    """

    def __init__(self, block: _Block, start: int, stop: int, by_column: bool) -> None:
        length, halo, columns = block.length, block.halo, block.columns
        size, count = block.size, stop - start
        part = slice(start, stop)
        value_part = slice(block.channels + start, block.channels + stop)
        window = count, size, size, length
        self.query, self.out = (z[part, None, None] for z in (block.query, block.out))
        self.offset = block.offset[part, :, None]
        # All that the windows reach.
        span = length + 2 * halo
        self.source = block.padded.as_strided(
            (count, 1, span), (length, span, 1), part.start * length
        )
        self.values = block.padded.as_strided(
            window, (length, columns, 1, 1), value_part.start * length
        )
        # One copy of the keys for each offset, and the windows that show them.
        self.keys = block.keys[:count]
        steps = (columns, span + 1) if by_column else (span + columns, 1)
        self.key_windows = block.keys.as_strided(window, (size * span, *steps, 1))
        self.share = block.share[:count]
        self.top, self.total = block.top[:count], block.total[:count]
        if block.grad_offset is None:
            return
        self.grad, self.grad_query, self.grad_key, self.grad_value = (
            z[:, None, None]
            for z in (
                block.grad[part],
                block.grad_query[part],
                block.grad_key_value[part],
                block.grad_key_value[value_part],
            )
        )
        self.grad_offset = block.grad_offset[part]
        self.axis = 1 if by_column else 2
        # The adjoint of the windows sums maps that are shifted the other way. What is
        # written with the steps of a window is read at equal distances here, because
        # a sum over these is a fast one. In between are zeros.
        row, step = length + halo, block.spread.stride(0)
        self.spread = block.spread.as_strided(
            window, (step, size * row + columns, row + 1, 1), 0
        )
        self.folded = block.spread.as_strided(window, (step, size * row, row, 1), halo)

    def weigh(self) -> None:
        """Compute the share of each position, yet to be divided by the total."""
        torch.add(self.source, self.offset, out=self.keys)
        torch.mul(self.key_windows, self.query, out=self.share)
        torch.amax(self.share, (1, 2), keepdim=True, out=self.top)
        # Much faster than `exp`.
        self.share.sub_(self.top).exp2_()
        torch.sum(self.share, (1, 2), keepdim=True, out=self.total)

    def attend(self) -> None:
        """Compute the output."""
        self.weigh()
        self.share.mul_(self.values)
        torch.sum(self.share, (1, 2), keepdim=True, out=self.out)
        self.out.div_(self.total)

    def backward(self) -> None:
        """Compute all gradients."""
        self.weigh()
        share = self.share
        self.grad.div_(self.total)
        torch.mul(share, self.grad, out=self.spread)
        torch.sum(self.folded, (1, 2), keepdim=True, out=self.grad_value)
        # Through the softmax: w_i (g v_i - sum_j w_j g v_j) = w_i g (v_i - out)
        torch.sub(self.values, self.out, out=share)
        share.mul_(self.spread)
        self.query.mul_(math.log(2))
        torch.mul(share, self.query, out=self.spread)
        torch.sum(self.folded, (1, 2), keepdim=True, out=self.grad_key)
        self.grad_offset += self.spread.sum(-1).sum(self.axis)
        share.mul_(self.key_windows)
        torch.sum(share, (1, 2), keepdim=True, out=self.grad_query)
        self.grad_query.mul_(math.log(2))
