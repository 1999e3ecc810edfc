# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Attention over windows in one kernel each way, for GPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernel_library import add_kernel, runs_kernels

# Pixels of a program, and warps that share them: registers suffice.
_TILE = 512
_WARPS = dict(attend=4, attend_backward=8)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class TritonWindowAttention(torch.autograd.Function):
    """Attention that reads its inputs once and writes nothing but results.

    The forward pass keeps the logarithm of what softmax divides by, one number a query,
    from which the backward pass gets every weight. That gathers: a pixel's query finds
    its gradient in its window, and its key and value in the windows that they are part
    of. No two programs write to one place, so results are the same in every run.

    Inputs may be in half precision, and are computed with in float32. Queries of
    smaller maps are enlarged as they are read. Maps stay channels-last where keys and
    values are.
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
            key_value (Tensor): Keys, then values, (N, 2 C, H, W), with fewer than 2^31
                numbers a sample.
            row_offset (Tensor): Offsets of the keys by row, (C / 2, size).
            column_offset (Tensor): Those by column, (C / 2, size).

        Returns:
            Tensor: Averaged values (N, C, H, W), with dtype and layout of keys and
            values.
        """
        last = not key_value.is_contiguous() and key_value.is_contiguous(
            memory_format=torch.channels_last
        )
        ctx.format = torch.channels_last if last else torch.contiguous_format
        query = query.contiguous(memory_format=ctx.format)
        key_value = key_value.contiguous(memory_format=ctx.format)
        shape = len(query), query.shape[1], *key_value.shape[2:]
        out, log_total = (
            torch.empty(
                shape, dtype=dtype, device=query.device, memory_format=ctx.format
            )
            for dtype in (key_value.dtype, torch.float32)
        )
        offsets = row_offset.contiguous(), column_offset.contiguous()
        inputs = query, key_value, *offsets
        _attend(*inputs, last, out=out, log_total=log_total)
        ctx.save_for_backward(*inputs, out, log_total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors of ``forward``."""
        # Once, as what a checkpoint kept is unpacked.
        saved = ctx.saved_tensors
        query, key_value, row_offset, _, out, log_total = saved
        last = ctx.format == torch.channels_last
        # Of queries as they are enlarged.
        grad_query = torch.empty_like(out, dtype=query.dtype)
        grad_key_value = torch.empty_like(key_value)
        # The offsets' gradient of each tile.
        tiles = len(out) * _count(out, _tile(out, last))
        parts = log_total.new_empty(tiles, out.shape[1], row_offset.shape[1])
        _attend_backward(
            *saved,
            *(grad.contiguous(memory_format=ctx.format), last),
            grad_query=grad_query,
            grad_key_value=grad_key_value,
            grad_offset=parts,
        )
        grad_query = _reduce(grad_query, query)
        offsets = parts.sum(0).to(row_offset.dtype).chunk(2)
        return grad_query, grad_key_value, *offsets


def is_usable(key_value: Tensor) -> bool:
    """Tell whether the kernels are made for such keys and values, and run there.

    Args:
        key_value (Tensor): Keys and values.

    Returns:
        bool: Whether to try.
    """
    # Positions in a sample are numbers of 32 bits.
    fits = key_value.dtype in _DTYPES and key_value.shape[1:].numel() < 2**31
    return fits and runs_kernels(key_value)


def _reduce(grad: Tensor, query: Tensor) -> Tensor:
    """Bring the gradient of enlarged queries to those that there are."""
    (height, width), (rows, columns) = grad.shape[2:], query.shape[2:]
    if (height, width) == (rows, columns):
        return grad
    if height % rows or width % columns:
        return torch.ops.aten.upsample_nearest2d_backward(
            grad, grad.shape[2:], query.shape
        )
    grad = grad.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    return grad.sum((3, 5))


def _tile(out: Tensor, last: bool) -> dict[str, int]:
    """Choose the tile of a program and say how maps lie in memory."""
    # Neighbours in memory first: they are read together.
    limits = dict(C=16, W=8, H=_TILE) if last else dict(W=32, H=_TILE, C=_TILE)
    _, channels, height, width = out.shape
    lengths = dict(C=channels // 2, H=height, W=width)
    tile: dict[str, int] = dict(LAST=last)
    room = _TILE
    for name, limit in limits.items():
        power = 1 << (lengths[name] - 1).bit_length()
        tile[f'BLOCK_{name}'] = length = min(power, limit, room)
        room //= length
    return tile


def _count(out: Tensor, tile: dict[str, int]) -> int:
    """How many tiles cover a map."""
    height, width = out.shape[2:]
    return -(-height // tile['BLOCK_H']) * -(-width // tile['BLOCK_W'])


def _launch_attend(
    query: Tensor,
    key_value: Tensor,
    row_offset: Tensor,
    column_offset: Tensor,
    last: bool,
    *,
    out: Tensor,
    log_total: Tensor,
) -> None:
    tensors = query, key_value, row_offset, column_offset, out, log_total
    _launch('attend', tensors, last)


def _launch_backward(
    query: Tensor,
    key_value: Tensor,
    row_offset: Tensor,
    column_offset: Tensor,
    out: Tensor,
    log_total: Tensor,
    grad: Tensor,
    last: bool,
    *,
    grad_query: Tensor,
    grad_key_value: Tensor,
    grad_offset: Tensor,
) -> None:
    inputs = query, key_value, row_offset, column_offset, out, log_total, grad
    tensors = *inputs, grad_query, grad_key_value, grad_offset
    _launch('attend_backward', tensors, last)


def _launch(name: str, tensors: tuple[Tensor, ...], last: bool) -> None:
    """Run a kernel on all tiles of all channels of all samples."""
    # The kernels need Triton, which not every torch brings.
    from . import window_attention_kernels

    query, _, row_offset, _, out, *_ = tensors
    samples, channels, height, width = out.shape
    tile = _tile(out, last)
    parts = -(-(channels // 2) // tile['BLOCK_C'])
    programs = samples * 2 * parts * _count(out, tile)
    if programs == 0:
        return
    kernel = getattr(window_attention_kernels, name)
    rows, columns = query.shape[2:]
    # As PyTorch finds the nearest neighbours.
    sizes = channels, height, width, rows, columns, rows / height, columns / width
    enlarge = (rows, columns) != (height, width)
    options = dict(tile, SIZE=row_offset.shape[1], ENLARGE=enlarge)
    with torch.cuda.device_of(out):
        kernel[(programs,)](*tensors, *sizes, num_warps=_WARPS[name], **options)


_attend = add_kernel(
    'attend(Tensor query, Tensor key_value, Tensor row_offset, Tensor column_offset, '
    'bool last, *, Tensor(a!) out, Tensor(b!) log_total) -> ()',
    _launch_attend,
)
_attend_backward = add_kernel(
    'attend_backward(Tensor query, Tensor key_value, Tensor row_offset, '
    'Tensor column_offset, Tensor out, Tensor log_total, Tensor grad, bool last, *, '
    'Tensor(a!) grad_query, '
    'Tensor(b!) grad_key_value, Tensor(c!) grad_offset) -> ()',
    _launch_backward,
)
