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

# Pixels worked on at a time: on CPUs, for each thread, what leaves the weights of all
# positions of the window in the cache of a core; on GPUs what keeps them busy.
_CPU_BLOCK = 2**14
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
            offset (Tensor): Offsets of the keys, (size, C): one per row of the
                window in the first half of the channels, one per column in the
                second.
            size (int): Side of the window.

        Returns:
            Tensor: Values, averaged by softmax(query * (key + offset)), (N, C, H, W).
        """
        ctx.size = size
        ctx.save_for_backward(query, key_value, offset)
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        for part, block in _blocks(query, offset, size):
            block.maps(block.query).copy_(query[part])
            block.maps(block.key_value).copy_(key_value[part])
            for chunk in block.chunks:
                chunk.attend()
            out[part].copy_(block.maps(block.out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``query``, ``key_value`` and ``offset``."""
        query, key_value, offset = ctx.saved_tensors
        grad_query, grad_key_value, grad_offset = (
            torch.zeros(z.shape, dtype=z.dtype, device=z.device)
            if z is offset
            else torch.empty(z.shape, dtype=z.dtype, device=z.device)
            for z in (query, key_value, offset)
        )
        for part, block in _blocks(query, offset, ctx.size, grad_offset):
            block.maps(block.query).copy_(query[part])
            block.maps(block.key_value).copy_(key_value[part])
            block.maps(block.grad).copy_(grad[part])
            for chunk in block.chunks:
                chunk.attend()
                chunk.backward()
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
            offsets.append(torch.cat([offset[i, :half], offset[j, half:]]))
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
    block = None
    for start in range(0, n, samples):
        count = min(samples, n - start)
        if block is None or block.samples != count:
            shape = count, channels, height, width
            block = _Block(shape, numel, offset, size, grad_offset)
        yield slice(start, start + count), block


def _share(total: int, numel: int, each: int) -> int:
    """How many things to take at a time: equal shares with about ``numel`` pixels."""
    most = max(1, min(total, round(numel / each)))
    return -(-total // -(-total // most)) if total else 1


class _Block:
    """Memory for some samples.

    Maps lie one after another, channel by channel, and each of them row by row, with
    a margin of zeros behind every row and behind every map. So the pixel that is some
    rows and columns away is a fixed number of elements away, for all pixels alike: a
    shifted map is a mere slice of the memory, and contiguous. Margins attend as well,
    which nobody reads, and nothing comes back from them, since queries and gradients
    are zero there.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        numel: int,
        offset: Tensor,
        size: int,
        grad_offset: Tensor | None,
    ) -> None:
        self.samples, self.channels, self.height, self.width = shape
        self.offset, self.size, self.grad_offset = offset, size, grad_offset
        margin = size // 2
        self.columns = self.width + margin
        self.length = self.samples * (self.height + margin) * self.columns
        # Reach of a window in memory.
        self.halo = margin * self.columns + margin
        zeros, empty = offset.new_zeros, offset.new_empty
        self.query = zeros(self.channels, self.length)
        self.out = empty(self.channels, self.length)
        self.padded = zeros(2 * self.channels * self.length + 2 * self.halo)
        inner = self.padded[self.halo : self.padded.numel() - self.halo]
        self.key_value = inner.view(-1, self.length)

        half = self.channels // 2
        count = _share(half, numel, self.length)
        window = size, size, count, self.length
        self.keys = empty(size, count, self.length + 2 * self.halo)
        self.share, self.terms = empty(window), empty(window)
        self.top, self.total = empty(2, count, self.length)
        if grad_offset is not None:
            self.grad = zeros(self.channels, self.length)
            self.grad_query = empty(self.channels, self.length)
            self.grad_key_value = empty(2 * self.channels, self.length)
            spread = size**2 * count * (self.length + self.halo) + 2 * self.halo
            self.spread = zeros(spread)
        self.chunks = [
            _Chunk(self, start, min(start + count, first + half), start >= half)
            for first in (0, half)
            for start in range(first, first + half, count)
        ]

    def maps(self, feature: Tensor) -> Tensor:
        """The pixels of (C, length) without margins, as (N, C, H, W)."""
        maps = feature.view(feature.shape[0], self.samples, -1, self.columns)
        return maps[:, :, : self.height, : self.width].transpose(0, 1)


class _Chunk:
    """Channels ``start`` to ``stop`` of a block, which all have offsets of one kind.

    The views are made once, because the memory serves one block after another.
    """

    def __init__(self, block: _Block, start: int, stop: int, by_column: bool) -> None:
        length, halo, columns = block.length, block.halo, block.columns
        size, count = block.size, stop - start
        part = slice(start, stop)
        value_part = slice(block.channels + start, block.channels + stop)
        window = size, size, count, length
        self.query, self.out = block.query[part], block.out[part]
        self.offset = block.offset[:, part, None]
        # All that the windows reach.
        span = length + 2 * halo
        self.source = block.padded.as_strided(
            (count, span), (length, 1), part.start * length
        )
        self.values = block.padded.as_strided(
            window, (columns, 1, length, 1), value_part.start * length
        )
        # One copy of the keys for each offset, and the windows that show them.
        self.keys = block.keys[:, :count]
        step = self.keys.stride(0)
        steps = (columns, step + 1) if by_column else (step + columns, 1)
        self.key_windows = block.keys.as_strided(window, (*steps, span, 1))
        self.share, self.terms = block.share[:, :, :count], block.terms[:, :, :count]
        self.top, self.total = block.top[:count], block.total[:count]
        if block.grad_offset is None:
            return
        self.grad, self.grad_query = block.grad[part], block.grad_query[part]
        self.grad_key = block.grad_key_value[part]
        self.grad_value = block.grad_key_value[value_part]
        self.grad_offset = block.grad_offset[:, part]
        self.axis = 0 if by_column else 1
        # The adjoint of the windows sums maps that are shifted the other way. What is
        # written with the steps of a window is read at equal distances here, because
        # a sum over these is a fast one. In between are zeros.
        row = length + halo
        step = block.keys.shape[1] * row
        self.spread = block.spread.as_strided(
            window, (size * step + columns, step + 1, row, 1), 0
        )
        self.folded = block.spread.as_strided(window, (size * step, step, row, 1), halo)

    def attend(self) -> None:
        """Compute the output; leaves the weights times ``total``."""
        torch.add(self.source, self.offset, out=self.keys)
        torch.mul(self.key_windows, self.query, out=self.share)
        torch.amax(self.share, (0, 1), out=self.top)
        # Much faster than `exp`.
        self.share.sub_(self.top).exp2_()
        torch.sum(self.share, (0, 1), out=self.total)
        torch.mul(self.share, self.values, out=self.terms)
        torch.sum(self.terms, (0, 1), out=self.out)
        self.out.div_(self.total)

    def backward(self) -> None:
        """Compute all gradients, right after ``attend``; overwrites its results."""
        share, terms, grad = self.share, self.terms, self.grad
        grad.div_(self.total)
        torch.mul(share, grad, out=self.spread)
        torch.sum(self.folded, (0, 1), out=self.grad_value)
        grad.mul_(math.log(2))
        # Through the softmax: w_i (g v_i - sum_j w_j g v_j) = g w_i (v_i - out)
        terms.addcmul_(share, self.out, value=-1)
        torch.mul(terms, self.key_windows, out=share)
        torch.sum(share, (0, 1), out=self.grad_query)
        self.grad_query.mul_(grad)
        grad.mul_(self.query)
        torch.mul(terms, grad, out=self.spread)
        torch.sum(self.folded, (0, 1), out=self.grad_key)
        self.grad_offset += self.spread.sum(-1).sum(self.axis)
