# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Attention over windows block by block, with a backward pass of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .maps import resize

# Pixels worked on at a time, unless it is said. On CPUs, for each thread, so few that
# the weights of all positions of their windows stay in a cache, and so many that calls
# cost little.
_CPU_BLOCK = 3 * 2**13
_GPU_BLOCK = 2**21


class BlockwiseWindowAttention(torch.autograd.Function):
    """Attention over windows, channel by channel.

    The work goes block by block, some samples and some channels of theirs at a time,
    so that what is as large as all positions of all windows never goes through main
    memory. The backward pass computes the weights again, which takes less time than
    storing them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key_value: Tensor,
        row_offset: Tensor,
        column_offset: Tensor,
        pixels: int | None = None,
    ) -> Tensor:
        """Let queries attend to keys.

        Args:
            ctx (Any): Context of autograd.
            query (Tensor): Queries (N, C, H', W'). Of another size they stand for
                their nearest neighbours, and are enlarged block by block.
            key_value (Tensor): Keys, then values, (N, 2 C, H, W).
            row_offset (Tensor): Offsets of the keys in the first half of the channels,
                one per row of the window, (C / 2, size).
            column_offset (Tensor): Those in the second half, one per column.
            pixels (int, optional): Pixels worked on at a time. Defaults to None, for
                what suits the device.

        Returns:
            Tensor: Values, averaged by softmax(query * (key + offset)), (N, C, H, W).
        """
        ctx.pixels, offset = pixels, torch.cat([row_offset, column_offset])
        out = query.new_empty(*query.shape[:2], *key_value.shape[2:])
        queries, keys_values, outs = _halves(query, key_value, out)
        for part, block in _blocks(out, offset, pixels):
            block.load(queries[part], keys_values[part])
            block.attend()
            outs[part].copy_(block.maps(block.out))
        ctx.save_for_backward(query, key_value, offset, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys with values, and both kinds of offsets."""
        query, key_value, offset, out = ctx.saved_tensors
        grad_query, grad_key_value = (z.new_empty(z.shape) for z in (query, key_value))
        grad_offset = torch.zeros_like(offset)
        queries, keys_values, outs, grads, grad_queries, grad_keys_values = _halves(
            query, key_value, out, grad, grad_query, grad_key_value
        )
        how = offset, ctx.pixels
        for part, block in _blocks(out, *how, grad_offset):
            block.load(queries[part], keys_values[part])
            block.maps(block.out).copy_(outs[part])
            block.maps(block.grad).copy_(grads[part])
            block.backward()
            block.reduce(block.maps(block.grad_query), grad_queries[part])
            grad_keys_values[part].copy_(block.maps(block.grad_key_value))
        return grad_query, grad_key_value, *grad_offset.chunk(2), None


def _halves(*features: Tensor) -> list[Tensor]:
    """View features (N, k C, H, W) as the halves of their channels, (N, 2 k, C/2, ..).

    The number of channels is that of the first feature.
    """
    half = features[0].shape[1] // 2
    return [feature.unflatten(1, (-1, half)) for feature in features]


def _blocks(
    like: Tensor,
    offset: Tensor,
    pixels: int | None,
    grad_offset: Tensor | None = None,
) -> Iterator[tuple[tuple[slice, ...], _Block]]:
    """Cut the work into blocks: slices of what has halves, and the memory to work on.

    Args:
        like (Tensor): A feature (N, C, H, W).
        offset (Tensor): Offsets of all channels.
        pixels (int, optional): Pixels worked on at a time, if not what suits the
            device.
        grad_offset (Tensor, optional): Their gradient, which blocks add to.

    Yields:
        tuple: Slices of samples, halves and channels of a half, and a block.
    """
    n, channels, height, width = like.shape
    on_cpu = like.device.type == 'cpu'
    numel = pixels or (_CPU_BLOCK if on_cpu else _GPU_BLOCK)
    if on_cpu:
        numel *= torch.get_num_threads()
    size = offset.shape[1]
    margin, half = size // 2, channels // 2
    each = (height + margin) * (width + margin)
    samples = _share(n, numel, half * each)
    # Where a single sample is too large, some channels of each half at a time.
    count = half if samples > 1 else _share(half, numel, each)
    block = _Block((height, width), offset, size, grad_offset is not None)
    every = slice(None)
    for first in range(0, half, count):
        channel = slice(first, min(first + count, half))
        for start in range(0, n, samples):
            sample = slice(start, min(start + samples, n))
            block.resize(sample.stop - sample.start, channel.stop - channel.start)
            block.offset.copy_(offset.unflatten(0, (2, half))[:, channel].flatten(0, 1))
            yield (sample, every, channel), block
            if grad_offset is not None:
                parts = grad_offset.unflatten(0, (2, half))[:, channel]
                parts += block.grad_offset.unflatten(0, (2, -1))


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
        self, shape: tuple[int, int], offset: Tensor, size: int, with_grad: bool
    ) -> None:
        self.height, self.width = shape
        self.like, self.size, self.with_grad = offset, size, with_grad
        self.columns = self.width + size // 2
        # Reach of a window in memory.
        self.halo = size // 2 * self.columns + size // 2
        self.samples = self.count = 0
        self.chunks: list[_Chunk] = []

    def resize(self, samples: int, count: int) -> None:
        """Make room for some samples, and as many channels of each half."""
        if (samples, count) == (self.samples, self.count):
            return
        # Views of the old memory first, for it to be freed.
        self.chunks = []
        self.samples, self.count = samples, count
        self.length = length = samples * (self.height + self.size // 2) * self.columns
        zeros, empty = self.like.new_zeros, self.like.new_empty
        self.query, self.out = zeros(2, 2 * count, length)
        self.padded = zeros(4 * count * length + 2 * self.halo)
        inner = self.padded[self.halo : self.padded.numel() - self.halo]
        self.key_value = inner.view(-1, length)
        self.offset = empty(2 * count, self.size)
        self.keys = empty(count, self.size, length + 2 * self.halo)
        self.share = empty(count, self.size, self.size, length)
        self.top, self.total = empty(2, count, 1, 1, length)
        if self.with_grad:
            self.grad = zeros(2 * count, length)
            self.grad_query = empty(2 * count, length)
            self.grad_key_value = empty(4 * count, length)
            self.grad_offset = empty(2 * count, self.size)
            # For each channel so many that the last position has room.
            scattered = self.size**2 * (length + self.halo) + self.halo
            self.scattered = zeros(count, scattered)
        self.chunks = [_Chunk(self, half) for half in (0, 1)]

    def maps(self, feature: Tensor) -> Tensor:
        """The pixels of (k, length) without margins, as (N, halves, channels, H, W)."""
        maps = feature.view(-1, self.count, self.samples, self.length // self.samples)
        maps = maps.unflatten(3, (-1, self.columns))[..., : self.height, : self.width]
        return maps.permute(2, 0, 1, 3, 4)

    def load(self, query: Tensor, key_value: Tensor) -> None:
        """Copy features here; queries are brought to the size of the others.

        They are divided by the natural logarithm of two, for scores to that base.
        """
        maps = self.maps(self.query)
        if query.shape != maps.shape:
            query = resize(query.flatten(1, 2), maps.shape[-2:]).unflatten(1, (2, -1))
        torch.mul(query, 1 / math.log(2), out=maps)
        self.maps(self.key_value).copy_(key_value)

    def reduce(self, grad: Tensor, out: Tensor) -> None:
        """Write the gradient of the queries as :meth:`load` got them."""
        if grad.shape != out.shape:
            small = len(out), 2 * self.count, *out.shape[-2:]
            grad = torch.ops.aten.upsample_nearest2d_backward(
                grad.flatten(1, 2), grad.shape[-2:], small
            ).unflatten(1, (2, -1))
        out.copy_(grad)

    # Loops over chunks are here, because a variable of a caller would keep one, and its
    # memory, while :meth:`resize` makes room.
    def attend(self) -> None:
        """Compute the output from queries, keys and values."""
        for chunk in self.chunks:
            chunk.attend()

    def backward(self) -> None:
        """Compute all gradients, given the output's, too; overwrites what is given."""
        for chunk in self.chunks:
            chunk.backward()


class _Chunk:
    """A half of the channels of a block, which all have offsets of one kind.

    The views are made once, because the memory serves one block after another.
    """

    def __init__(self, block: _Block, half: int) -> None:
        length, halo, columns = block.length, block.halo, block.columns
        size, count, by_column = block.size, block.count, half == 1
        part = slice(half * count, (half + 1) * count)
        value_part = slice((2 + half) * count, (3 + half) * count)
        window = count, size, size, length

        def channels(z: Tensor, part: slice = part) -> Tensor:
            return z[part, None, None]

        self.query, self.out = channels(block.query), channels(block.out)
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
        self.keys = block.keys
        steps = (columns, span + 1) if by_column else (span + columns, 1)
        self.key_windows = block.keys.as_strided(window, (size * span, *steps, 1))
        self.share = block.share
        self.top, self.total = block.top, block.total
        if not block.with_grad:
            return
        self.grad, self.grad_query = channels(block.grad), channels(block.grad_query)
        self.grad_key = channels(block.grad_key_value)
        self.grad_value = channels(block.grad_key_value, value_part)
        self.grad_offset = block.grad_offset[part]
        self.axis = 1 if by_column else 2
        # The adjoint of the windows sums maps that are shifted the other way. What is
        # written with the steps of a window is read at equal distances here, because
        # a sum over these is a fast one. In between are zeros.
        row, step = length + halo, block.scattered.stride(0)
        self.scattered = block.scattered.as_strided(
            window, (step, size * row + columns, row + 1, 1), 0
        )
        self.folded = block.scattered.as_strided(
            window, (step, size * row, row, 1), halo
        )

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
        """Compute all gradients, given the output's; overwrites what is given."""
        self.weigh()
        share = self.share
        self.grad.div_(self.total)
        torch.mul(share, self.grad, out=self.scattered)
        torch.sum(self.folded, (1, 2), keepdim=True, out=self.grad_value)
        # Through the softmax: w_i (g v_i - sum_j w_j g v_j) = w_i g (v_i - out)
        torch.sub(self.values, self.out, out=share)
        share.mul_(self.scattered)
        self.query.mul_(math.log(2))
        torch.mul(share, self.query, out=self.scattered)
        torch.sum(self.folded, (1, 2), keepdim=True, out=self.grad_key)
        self.grad_offset.copy_(self.scattered.sum(-1).sum(self.axis))
        share.mul_(self.key_windows)
        torch.sum(share, (1, 2), keepdim=True, out=self.grad_query)
