# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Attention over windows in one kernel each way, for GPUs."""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .blockwise_window_attention import BlockwiseWindowAttention

# Pixels of a program, and warps that share them: registers suffice.
_TILE = 512
_WARPS = dict(attend=4, attend_backward=8)

# Whether Triton has failed once in this process.
_failed = False


class TritonWindowAttention(torch.autograd.Function):
    """Attention that reads its inputs once and writes nothing but results.

    The forward pass keeps the logarithm of what softmax divides by, one number a query,
    from which the backward pass gets every weight. That gathers: a pixel's query finds
    its gradient in its window, and its key and value in the windows that they are part
    of. No two programs write to one place, so results are the same in every run.

    Maps stay channels-last where keys and values are.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key_value: Tensor, offset: Tensor, size: int
    ) -> Tensor:
        """Let queries attend to keys.

        Args:
            ctx (Any): Context of autograd.
            query (Tensor): Queries (N, C, H, W), float32, with fewer than 2^30 numbers
                a sample; for it and the others see
                :func:`~mmfakd.ops.window_attention.window_attention`.
            key_value (Tensor): Keys, then values, (N, 2 C, H, W).
            offset (Tensor): Offsets of the keys, (C, size).
            size (int): Side of the window.

        Returns:
            Tensor: Averaged values (N, C, H, W), laid out as keys and values.
        """
        last = not key_value.is_contiguous() and key_value.is_contiguous(
            memory_format=torch.channels_last
        )
        ctx.format = torch.channels_last if last else torch.contiguous_format
        ctx.size = size
        query = query.contiguous(memory_format=ctx.format)
        key_value = key_value.contiguous(memory_format=ctx.format)
        out, log_total = torch.empty_like(query), torch.empty_like(query)
        inputs = query, key_value, offset.contiguous(), out, log_total
        _launch('attend', inputs, size, _tile(query, last))
        ctx.save_for_backward(*inputs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``query``, ``key_value`` and ``offset``."""
        query, key_value, offset, *_ = inputs = ctx.saved_tensors
        grad_query, grad_key_value = (torch.empty_like(z) for z in (query, key_value))
        tile = _tile(query, ctx.format == torch.channels_last)
        # The offsets' gradient of each tile.
        parts = offset.new_empty(len(query) * _count(query, tile), *offset.shape)
        grads = grad.contiguous(memory_format=ctx.format), grad_query, grad_key_value
        try:
            _launch('attend_backward', (*inputs, *grads, parts), ctx.size, tile)
        except Exception as error:
            give_up(error)
            with torch.enable_grad():
                leaves = [z.detach().requires_grad_() for z in inputs[:3]]
                out = BlockwiseWindowAttention.apply(*leaves, ctx.size)
            return (*torch.autograd.grad(out, leaves, grad), None)
        return grad_query, grad_key_value, parts.sum(0), None


def is_usable(key_value: Tensor) -> bool:
    """Tell whether the kernels are made for such keys and values, and wanted.

    Args:
        key_value (Tensor): Keys and values.

    Returns:
        bool: Whether to try.
    """
    return (
        key_value.is_cuda
        and key_value.dtype == torch.float32
        # Positions in a sample are numbers of 32 bits.
        and key_value.shape[1:].numel() < 2**31
        and not _failed
        # To be asked for, until its speed has been measured.
        and os.environ.get('MMFAKD_TRITON') == '1'
        and _has_triton(key_value.device)
    )


def give_up(error: Exception) -> None:
    """Leave Triton alone from now on, and say so; unless memory is short.

    Args:
        error (Exception): What a kernel raised.

    Raises:
        torch.cuda.OutOfMemoryError: If that is the error.
    """
    global _failed
    if isinstance(error, torch.cuda.OutOfMemoryError):
        raise error
    _failed = True
    warnings.warn(
        'LocalCrossAttention computes in torch from now on, because its Triton kernels '
        f'failed here: {type(error).__name__}: {error}\n'
        'Without MMFAKD_TRITON=1 in the environment they are not tried.'
    )


@functools.cache
def _has_triton(device: torch.device) -> bool:
    """Whether Triton is installed and supports the device."""
    if importlib.util.find_spec('triton') is None:
        return False
    if torch.version.hip:
        return True
    return torch.cuda.get_device_capability(device) >= (7, 0)


def _tile(query: Tensor, last: bool) -> dict[str, int]:
    """Choose the tile of a program and say how maps lie in memory."""
    # Neighbours in memory first: they are read together.
    limits = dict(C=16, W=8, H=_TILE) if last else dict(W=32, H=_TILE, C=_TILE)
    _, channels, height, width = query.shape
    lengths = dict(C=channels // 2, H=height, W=width)
    tile: dict[str, int] = dict(LAST=last)
    room = _TILE
    for name, limit in limits.items():
        power = 1 << (lengths[name] - 1).bit_length()
        tile[f'BLOCK_{name}'] = length = min(power, limit, room)
        room //= length
    return tile


def _count(query: Tensor, tile: dict[str, int]) -> int:
    """How many tiles cover a map."""
    height, width = query.shape[2:]
    return -(-height // tile['BLOCK_H']) * -(-width // tile['BLOCK_W'])


def _launch(
    name: str, tensors: tuple[Tensor, ...], size: int, tile: dict[str, int]
) -> None:
    """Run a kernel on all tiles of all channels of all samples."""
    # The kernels need Triton, which not every torch brings.
    from . import window_attention_kernels

    query = tensors[0]
    samples, channels, *_ = query.shape
    parts = -(-(channels // 2) // tile['BLOCK_C'])
    programs = samples * 2 * parts * _count(query, tile)
    if programs == 0:
        return
    kernel = getattr(window_attention_kernels, name)
    options = dict(tile, SIZE=size, num_warps=_WARPS[name])
    with torch.cuda.device_of(query):
        kernel[(programs,)](*tensors, *query.shape[1:], **options)
