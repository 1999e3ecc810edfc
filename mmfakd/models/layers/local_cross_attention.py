# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Cross attention of two feature maps over small windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Pixels of the maps worked on at a time: on CPUs what stays in the cache of each
# thread's core, on GPUs what keeps them busy with little memory.
_CPU_BLOCK = 2**16 * torch.get_num_threads()
_GPU_BLOCK = 2**21


class LocalCrossAttention(nn.Module):
    r"""Let a feature attend to a window of another one, channel by channel.

    .. math::
        O_c(p) = \sum_{d \in W} \mathrm{softmax}_{d}\big(Q_c(p)\,
        (K_c(p + d) + r_c(d))\big) \, V_c(p + d), \quad
        Q = W_q Y,\; K = W_k X,\; V = W_v X

    with :math:`W` the ``kernel_size`` x ``kernel_size`` window around the pixel and
    :math:`r` learned relative offsets: one value per row of the window for the
    first half of the channels, one per column for the second half. Products are
    element-wise and unscaled. Outside the map keys and values are zero, and those
    positions take part in the softmax.

    Source: the fusion inside the review pyramid of *Frequency Attention for
    Knowledge Distillation*, WACV 2024 (arXiv 2403.05894) and its published
    implementation; the attention itself is that of *Stand-Alone Self-Attention in
    Vision Models* (arXiv 1906.05909).

    Keys and values are never unfolded. At most the attention weights of small maps
    are kept for the backward pass; those of large maps are computed again, block
    by block. Everything is computed in float32 (float64 for float64 input) with
    autocast off, because unscaled products overflow in half precision.

    Args:
        channels (int): Channels C of both inputs and of the output; even.
        kernel_size (int): Side of the window in pixels; odd. Defaults to 3.

    Shapes:
        - x, y: (N, C, H, W) both.
        - Output: (N, C, H, W), dtype of ``x``.

    Raises:
        ValueError: For an odd number of channels or an even window, and in
            ``forward`` for inputs of different or unexpected shapes.

    Examples:
        >>> import torch
        >>> from mmfakd.models.layers import LocalCrossAttention
        >>> feature, deeper = torch.rand(2, 8, 6, 6), torch.rand(2, 8, 6, 6)
        >>> LocalCrossAttention(8)(feature, deeper).shape
        torch.Size([2, 8, 6, 6])
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(
                f'LocalCrossAttention got channels={channels}, expected an even '
                'number, as half of the channels get row offsets and half column '
                'offsets: choose even `mid_channels`.'
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f'LocalCrossAttention got kernel_size={kernel_size}, expected an odd '
                'number: the window is centred on a pixel.'
            )
        self.channels = channels
        self.kernel_size = kernel_size
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.row_offset = nn.Parameter(torch.randn(channels // 2, kernel_size))
        self.column_offset = nn.Parameter(torch.randn(channels // 2, kernel_size))
        for conv in (self.query, self.key, self.value):
            nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuse two features.

        Args:
            x (Tensor): Feature of this level, keys and values, (N, C, H, W).
            y (Tensor): Feature of the deeper level, queries, (N, C, H, W).

        Returns:
            Tensor: Fused feature (N, C, H, W), dtype of ``x``.

        Raises:
            ValueError: If the shapes differ or are not (N, channels, H, W).
        """
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f'LocalCrossAttention got features of shape {tuple(x.shape)} and '
                f'{tuple(y.shape)}, expected two of one shape (N, {self.channels}, H, '
                'W): match channels and resize before.'
            )
        n, c, h, w = x.shape
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        with torch.autocast(device_type=x.device.type, enabled=False):
            # Channels do not interact: from here on every one is a map of its own.
            query, key, value = (
                F.conv2d(z.to(dtype), conv.weight.to(dtype)).reshape(n * c, h, w)
                for z, conv in ((y, self.query), (x, self.key), (x, self.value))
            )
            offset = self._window_offset().to(dtype)
            offset = offset.expand(n, -1, -1).reshape(n * c, -1)
            out = _WindowAttention.apply(query, key, value, offset, self.kernel_size)
            return out.view(n, c, h, w).to(x.dtype)

    def extra_repr(self) -> str:
        """Summarise the arguments for ``print``."""
        return f'{self.channels}, kernel_size={self.kernel_size}'

    def _window_offset(self) -> Tensor:
        """Relative offsets (C, kernel_size ** 2), window positions row by row."""
        size = self.kernel_size
        row = self.row_offset.unsqueeze(2).expand(-1, size, size)
        column = self.column_offset.unsqueeze(1).expand(-1, size, size)
        return torch.cat([row, column]).flatten(1)


class _WindowAttention(torch.autograd.Function):
    """The attention proper, on M single-channel maps with S = size ** 2 positions.

    Works on blocks of maps that fit into the processor's cache, so that nothing
    S-fold goes through main memory. When all maps fit into one block their weights
    are kept for the backward pass; otherwise they are computed again, which costs
    less than storing them.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, offset: Tensor, size: int
    ) -> Tensor:
        """Attend: maps (M, H, W) and offsets (M, S) to (M, H, W)."""
        out = torch.zeros_like(query)
        kept = None
        blocks = _blocks(query, query, key, value, offset, out)
        for block_query, block_key, block_value, block_offset, block_out in blocks:
            keys = _keys(_pad(block_key, size), block_offset, size)
            weights = keys.mul_(block_query).softmax(0)
            windows = _windows(_pad(block_value, size), size)
            for weight, shifted in zip(weights, windows):
                block_out.addcmul_(weight, shifted)
            kept = weights if block_query.shape == query.shape else None
        ctx.size = size
        ctx.save_for_backward(query, key, value, offset, out, kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key, value and offset."""
        query, key, value, offset, out, kept = ctx.saved_tensors
        size = ctx.size
        grads = [torch.empty_like(z) for z in (query, key, value, offset)]
        blocks = _blocks(query, query, key, value, offset, out, grad, *grads)
        for q, k, v, r, o, g, grad_q, grad_k, grad_v, grad_r in blocks:
            padded_k, padded_v = _pad(k, size), _pad(v, size)
            keys = _keys(padded_k, r, size)
            share = ((keys * q).softmax(0) if kept is None else kept) * g
            grad_v.copy_(_fold(share, size))
            # Through the softmax: w_i (g v_i - sum_j w_j g v_j) = w_i g (v_i - o)
            for share_i, v_i in zip(share, _windows(padded_v, size)):
                share_i *= v_i - o
            grad_q.copy_(keys.mul_(share).sum(0))
            share *= q
            grad_k.copy_(_fold(share, size))
            grad_r.copy_(share.sum((2, 3)).t())
        return (*grads, None)


def _blocks(like: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of M maps into blocks."""
    numel = _CPU_BLOCK if like.device.type == 'cpu' else _GPU_BLOCK
    maps = max(1, numel // max(1, like.shape[1] * like.shape[2]))
    return zip(*(tensor.split(maps) for tensor in tensors))


def _pad(maps: Tensor, size: int) -> Tensor:
    """Zero padding, (M, H, W) to (M, H + size - 1, W + size - 1)."""
    return F.pad(maps, (size // 2,) * 4)


def _fold(parts: Tensor, size: int) -> Tensor:
    """Adjoint of padding and windows: (S, M, H, W) to (M, H, W)."""
    height, width = parts.shape[-2:]
    margin = size // 2
    total = _pad(torch.zeros_like(parts[0]), size)
    for part, window in zip(parts, _windows(total, size)):
        window += part
    return total[:, margin : margin + height, margin : margin + width]


def _windows(padded: Tensor, size: int) -> list[Tensor]:
    """Views (M, H, W) of padded maps, one for each position of the window."""
    height, width = padded.shape[1] - size + 1, padded.shape[2] - size + 1
    return [
        padded[:, i : i + height, j : j + width]
        for i in range(size)
        for j in range(size)
    ]


def _keys(padded: Tensor, offset: Tensor, size: int) -> Tensor:
    """Keys with their offsets, (S, M, H, W)."""
    return torch.stack(_windows(padded, size)).add_(offset.t()[:, :, None, None])
