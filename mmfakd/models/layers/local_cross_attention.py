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

# Maps narrower than this lie pixel by pixel in memory instead of map by map, because
# loops over a few neighbouring pixels are slow.
_NARROW = 16


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
            sources = ((y, self.query), (x, self.key), (x, self.value))
            offset = self._window_offset().to(dtype).repeat(1, n)
            # Channels do not interact behind the convolutions: every one is a map.
            if w < _NARROW:
                maps = [
                    F.linear(
                        z.to(dtype).permute(2, 3, 0, 1).contiguous(),
                        conv.weight.to(dtype).flatten(1),
                    ).view(1, h, w, n * c)
                    for z, conv in sources
                ]
                offset = offset.view(-1, 1, 1, 1, n * c)
                out = _WindowAttention.apply(*maps, offset, self.kernel_size)
                out = out.view(h, w, n, c).permute(2, 3, 0, 1).contiguous()
            else:
                maps = [
                    F.conv2d(z.to(dtype), conv.weight.to(dtype)).reshape(-1, h, w, 1)
                    for z, conv in sources
                ]
                offset = offset.view(-1, n * c, 1, 1, 1)
                out = _WindowAttention.apply(*maps, offset, self.kernel_size)
                out = out.view(n, c, h, w)
            return out.to(x.dtype)

    def extra_repr(self) -> str:
        """Summarise the arguments for ``print``."""
        return f'{self.channels}, kernel_size={self.kernel_size}'

    def _window_offset(self) -> Tensor:
        """Relative offsets (kernel_size ** 2, C), window positions row by row."""
        size = self.kernel_size
        row = self.row_offset.t().unsqueeze(1).expand(size, size, -1)
        column = self.column_offset.t().unsqueeze(0).expand(size, size, -1)
        return torch.cat([row, column], dim=2).flatten(0, 1)


class _WindowAttention(torch.autograd.Function):
    """The attention proper, on single-channel maps with S = size ** 2 positions.

    Maps have the shape (A, H, W, B): there are A * B of them, of which either A or B
    is 1. The work goes block by block, and a block fits into the processor's cache,
    so that nothing S-fold goes through main memory. When all maps fit into one
    block their weights are kept for the backward pass; otherwise they are computed
    again, which costs less than storing them.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, offset: Tensor, size: int
    ) -> Tensor:
        """Attend: maps (A, H, W, B) and offsets (S, A, 1, 1, B) to (A, H, W, B)."""
        out = torch.zeros_like(query)
        kept = None
        for q, k, v, o, r in _blocks(query, key, value, out, offset):
            weights = _keys(_pad(k, size), r, size).mul_(q).softmax(0)
            for weight, shifted in zip(weights, _windows(_pad(v, size), size)):
                o.addcmul_(weight, shifted)
            kept = weights if q.shape == query.shape else None
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
        blocks = _blocks(query, key, value, out, grad, *grads[:3], offset, grads[3])
        for q, k, v, o, g, grad_q, grad_k, grad_v, r, grad_r in blocks:
            keys = _keys(_pad(k, size), r, size)
            share = ((keys * q).softmax(0) if kept is None else kept) * g
            grad_v.copy_(_fold(share, size))
            # Through the softmax: w_i (g v_i - sum_j w_j g v_j) = w_i g (v_i - o)
            for share_i, v_i in zip(share, _windows(_pad(v, size), size)):
                share_i *= v_i - o
            grad_q.copy_(keys.mul_(share).sum(0))
            share *= q
            grad_k.copy_(_fold(share, size))
            grad_r.copy_(share.sum((2, 3), keepdim=True))
        return (*grads, None)


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors along their axis of maps into blocks."""
    like = tensors[0]
    numel = _CPU_BLOCK if like.device.type == 'cpu' else _GPU_BLOCK
    maps = max(1, numel // max(1, like.shape[1] * like.shape[2]))
    # Counted from behind, as offsets have one more axis in front.
    axis = -1 if like.shape[0] == 1 else -4
    return zip(*(tensor.split(maps, axis) for tensor in tensors))


def _pad(maps: Tensor, size: int) -> Tensor:
    """Zero padding, (A, H, W, B) to (A, H + size - 1, W + size - 1, B)."""
    return F.pad(maps, (0, 0, *(size // 2,) * 4))


def _fold(parts: Tensor, size: int) -> Tensor:
    """Adjoint of padding and windows: (S, A, H, W, B) to (A, H, W, B)."""
    height, width = parts.shape[2:4]
    margin = size // 2
    total = _pad(torch.zeros_like(parts[0]), size)
    for part, window in zip(parts, _windows(total, size)):
        window += part
    return total[:, margin : margin + height, margin : margin + width]


def _windows(padded: Tensor, size: int) -> list[Tensor]:
    """Views (A, H, W, B) of padded maps, one for each position of the window."""
    height, width = padded.shape[1] - size + 1, padded.shape[2] - size + 1
    return [
        padded[:, i : i + height, j : j + width]
        for i in range(size)
        for j in range(size)
    ]


def _keys(padded: Tensor, offset: Tensor, size: int) -> Tensor:
    """Keys with their offsets, (S, A, H, W, B)."""
    return torch.stack(_windows(padded, size)).add_(offset)
