# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The computation behind LocalCrossAttention, with a backward pass of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pixels of the maps worked on at a time, per thread: the weights, one per pixel and
# position of the window, stay in the cache of a CPU's core. On GPUs the number keeps
# them busy with little memory.
_CPU_BLOCK = 2**14
_GPU_BLOCK = 2**21


class WindowAttention(torch.autograd.Function):
    """Projections of two features and attention over windows, channel by channel.

    The work goes block by block: some samples are projected, then some channels of
    theirs attended at a time, and nothing that is as large as the features goes
    through main memory but inputs and outputs. Only the inputs are kept for the
    backward pass, which computes the blocks again: that costs less than storing
    them.

    The computation has the dtype of the weights, whatever that of the features.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        query: Tensor,
        key_value: Tensor,
        offset: Tensor,
        size: int,
    ) -> Tensor:
        """Let ``y`` attend to ``x``.

        Args:
            ctx (Any): Context of autograd.
            x (Tensor): Feature of keys and values, (N, C, H, W).
            y (Tensor): Feature of queries, (N, C, H, W).
            query (Tensor): Weights of the queries, (C, C).
            key_value (Tensor): Weights of keys and values, (2 C, C).
            offset (Tensor): Offsets of the keys, (size, C): one per row of the
                window for the first half of the channels, one per column for the
                second.
            size (int): Side of the window.

        Returns:
            Tensor: Feature (N, C, H, W) of the dtype of ``x``.
        """
        ctx.size = size
        ctx.save_for_backward(x, y, query, key_value, offset)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for part, block in _blocks(x, query, key_value, offset, size):
            block.project(x[part], y[part])
            for chunk in block.chunks:
                chunk.attend()
            out[part].copy_(block.maps(block.out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the first five arguments of ``forward``."""
        x, y, query, key_value, offset = ctx.saved_tensors
        grads = [
            torch.empty(z.shape, dtype=z.dtype, device=z.device) if needed else None
            for z, needed in zip((x, y), ctx.needs_input_grad)
        ]
        grad_query, grad_key_value, grad_offset = (
            torch.zeros_like(z) for z in (query, key_value, offset)
        )
        with torch.autocast(device_type=x.device.type, enabled=False):
            blocks = _blocks(x, query, key_value, offset, ctx.size, grad_offset)
            for part, block in blocks:
                block.project(x[part], y[part])
                block.maps(block.grad).copy_(grad[part])
                for chunk in block.chunks:
                    chunk.attend()
                    chunk.backward()
                grad_query.addmm_(block.grad_query, block.y.t())
                grad_key_value.addmm_(block.grad_key_value, block.x.t())
                for grad_z, weight, grad_map in zip(
                    grads, (key_value, query), (block.grad_key_value, block.grad_query)
                ):
                    if grad_z is not None:
                        torch.mm(weight.t(), grad_map, out=block.out)
                        grad_z[part].copy_(block.maps(block.out))
        return (*grads, grad_query, grad_key_value, grad_offset, None)


def plain_window_attention(
    x: Tensor,
    y: Tensor,
    query: Tensor,
    key_value: Tensor,
    offset: Tensor,
    size: int,
) -> Tensor:
    """The function of WindowAttention in operations that compilers trace and fuse.

    Without a compiler it takes several times the memory and time.

    Args:
        x (Tensor): As in :meth:`WindowAttention.forward`, and so are the others.
        y (Tensor): See there.
        query (Tensor): See there.
        key_value (Tensor): See there.
        offset (Tensor): See there.
        size (int): See there.

    Returns:
        Tensor: Feature (N, C, H, W) of the dtype of ``x``.
    """
    height, width = x.shape[-2:]
    half = query.shape[0] // 2
    queries = F.conv2d(y.to(query), query[..., None, None])
    padded = F.pad(x.to(query), (size // 2,) * 4)
    padded = F.conv2d(padded, key_value[..., None, None])
    positions = [(i, j) for i in range(size) for j in range(size)]
    windows = torch.stack(
        [padded[..., i : i + height, j : j + width] for i, j in positions]
    )
    keys, values = windows.chunk(2, 2)
    offsets = torch.stack(
        [torch.cat([offset[i, :half], offset[j, half:]]) for i, j in positions]
    )
    weights = (queries * (keys + offsets[:, None, :, None, None])).softmax(0)
    return (weights * values).sum(0).to(x.dtype)


def _blocks(
    x: Tensor,
    query: Tensor,
    key_value: Tensor,
    offset: Tensor,
    size: int,
    grad_offset: Tensor | None = None,
) -> Iterator[tuple[slice, _Block]]:
    """Cut the samples into blocks: the slices and the memory to work on them."""
    n, channels, height, width = x.shape
    if x.device.type == 'cpu':
        numel = _CPU_BLOCK * torch.get_num_threads()
    else:
        numel = _GPU_BLOCK
    margin = size // 2
    pixels = (height + margin) * (width + margin)
    samples = _share(n, numel / (channels // 2 * pixels))
    block = None
    for start in range(0, n, samples):
        count = min(samples, n - start)
        if block is None or block.samples != count:
            block = _Block(
                (count, channels, height, width),
                numel,
                query,
                key_value,
                offset,
                size,
                grad_offset,
            )
        yield slice(start, start + count), block


def _share(total: int, most: float) -> int:
    """Size of equal parts of a total that have about ``most`` each."""
    count = max(1, min(total, round(most)))
    parts = -(-total // count)
    return -(-total // parts) if parts else count


class _Block:
    """Memory for some samples, and what is done with it.

    Maps lie one after another, channel by channel, and each of them row by row, with
    a margin of zeros behind every row and behind every map. So the pixel that is some
    rows and columns away is a fixed number of elements away, for all pixels alike: a
    shifted map is a mere slice of the memory, and contiguous. Margins get attention
    as well; nobody reads it, and as queries and gradients are zero there nothing
    comes back from it.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        numel: int,
        query: Tensor,
        key_value: Tensor,
        offset: Tensor,
        size: int,
        grad_offset: Tensor | None,
    ) -> None:
        self.samples, self.channels, self.height, self.width = shape
        self.size = size
        margin = size // 2
        self.columns = self.width + margin
        self.length = self.samples * (self.height + margin) * self.columns
        self.halo = margin * self.columns + margin
        # Scores have base two, because `exp2` is much faster than `exp`.
        self.weights = query / math.log(2), key_value
        self.offset, self.grad_offset = offset, grad_offset
        zeros, empty = query.new_zeros, query.new_empty
        feature = self.channels, self.length
        self.x, self.y = zeros(feature), zeros(feature)
        self.query, self.out = empty(feature), empty(feature)
        self.padded = zeros(2 * self.channels * self.length + 2 * self.halo)
        inner = self.padded[self.halo : self.padded.numel() - self.halo]
        self.key_value = inner.view(-1, self.length)

        half = self.channels // 2
        count = _share(half, numel / self.length)
        self.keys = empty(size, count, self.length + 2 * self.halo)
        self.share, self.terms = empty(2, size, size, count, self.length)
        self.top, self.total = empty(2, count, self.length)
        if grad_offset is not None:
            self.grad, self.grad_query = zeros(feature), empty(feature)
            self.grad_key_value = empty(2 * self.channels, self.length)
            self.grad_keys = empty(size, count, self.length + self.halo)
            spread = size**2 * count * (self.length + 3 * self.halo) + 2 * self.halo
            self.spread = zeros(spread)
        self.chunks = [
            _Chunk(self, start, min(start + count, first + half), start >= half)
            for first in (0, half)
            for start in range(first, first + half, count)
        ]

    def maps(self, feature: Tensor) -> Tensor:
        """The pixels of a (C, length) feature without margins, (N, C, H, W)."""
        padded = feature.view(self.channels, self.samples, -1, self.columns)
        return padded[:, :, : self.height, : self.width].transpose(0, 1)

    def project(self, x: Tensor, y: Tensor) -> None:
        """Compute queries, keys and values."""
        self.maps(self.x).copy_(x)
        self.maps(self.y).copy_(y)
        torch.mm(self.weights[0], self.y, out=self.query)
        torch.mm(self.weights[1], self.x, out=self.key_value)


class _Chunk:
    """Attention in channels ``start`` to ``stop`` of a block.

    They all have offsets by row, or all have offsets by column (``by_column``). The
    views are made once, because the same memory serves one block after another.
    """

    def __init__(self, block: _Block, start: int, stop: int, by_column: bool) -> None:
        count, length, halo, columns = (
            stop - start,
            block.length,
            block.halo,
            block.columns,
        )
        size = block.size
        part = slice(start, stop)
        value_part = slice(block.channels + start, block.channels + stop)
        window = size, size, count, length
        span = length + 2 * halo
        self.query, self.out = block.query[part], block.out[part]
        self.offset = block.offset[:, part, None]
        self.source = block.padded.as_strided(
            (count, span), (length, 1), start * length
        )
        # One set of keys for each offset, of which the window shows nine.
        self.keys = block.keys[:, :count]
        step = self.keys.stride(0)
        self.key_windows = block.keys.as_strided(
            window,
            ((columns, step + 1) if by_column else (step + columns, 1)) + (span, 1),
        )
        self.values = block.padded.as_strided(
            window, (columns, 1, length, 1), value_part.start * length
        )
        self.share, self.terms = block.share[:, :, :count], block.terms[:, :, :count]
        self.top, self.total = block.top[:count], block.total[:count]
        if block.grad_offset is None:
            return
        self.grad, self.grad_query = block.grad[part], block.grad_query[part]
        self.grad_key = block.grad_key_value[part]
        self.grad_value = block.grad_key_value[value_part]
        self.grad_offset = block.grad_offset[:, part]
        self.grad_keys = block.grad_keys[:, :count]
        # The adjoint of the windows sums maps that are shifted the other way. The
        # memory has such gaps that what is written with the shifts of a window is
        # read at equal distances, and a sum over these is a fast one.
        row = length + 3 * halo
        step = block.keys.shape[1] * row
        self.spread = block.spread.as_strided(
            window, (size * step + columns, step + 1, row, 1), 2 * halo
        )
        self.folded = block.spread.as_strided(
            (size, size, count, length + halo), (size * step, step, row, 1), 2 * halo
        )
        self.halo = halo
        self.axis = 0 if by_column else 1

    def attend(self) -> None:
        """Compute the output; leaves the weights, yet to be divided by ``total``."""
        torch.add(self.source, self.offset, out=self.keys)
        torch.mul(self.key_windows, self.query, out=self.share)
        torch.amax(self.share, (0, 1), out=self.top)
        self.share.sub_(self.top).exp2_()
        torch.sum(self.share, (0, 1), out=self.total)
        torch.mul(self.share, self.values, out=self.terms)
        torch.sum(self.terms, (0, 1), out=self.out)
        self.out.div_(self.total)

    def backward(self) -> None:
        """Compute all gradients, right after ``attend``; overwrites ``grad``."""
        share, terms, grad, halo = self.share, self.terms, self.grad, self.halo
        grad.div_(self.total)
        torch.mul(share, grad, out=self.spread)
        torch.sum(self.folded[..., halo:], (0, 1), out=self.grad_value)
        # Through the softmax: w_i (g v_i - sum_j w_j g v_j) = w_i g (v_i - out)
        torch.sub(self.values, self.out, out=terms)
        share.mul_(terms)
        torch.mul(share, self.key_windows, out=terms)
        torch.sum(terms, (0, 1), out=self.grad_query)
        self.grad_query.mul_(grad)
        grad.mul_(self.query).mul_(math.log(2))
        torch.mul(share, grad, out=self.spread)
        # Margins in front of the first map take part, they have offsets too.
        torch.sum(self.folded, self.axis, out=self.grad_keys)
        self.grad_offset += self.grad_keys.sum(-1)
        torch.sum(self.grad_keys[..., halo:], 0, out=self.grad_key)
