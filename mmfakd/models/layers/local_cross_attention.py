# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Cross attention of two feature maps over small windows."""

from __future__ import annotations

from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfakd.ops.maps import check_real, resize
from mmfakd.ops.no_autocast import no_autocast
from mmfakd.ops.window_attention import window_attention

# With fewer channels matrix products are faster than convolutions, which on CPUs spend
# more time on bringing features into a layout of their own.
_FEW = 32


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

    Keys and values are never unfolded, and no attention weights are kept for the
    backward pass: they are computed again, block by block, which is faster than
    storing them. Everything is computed in float32 (float64 for float64 input) with
    autocast off, because unscaled products overflow in half precision. There is no
    second derivative.

    On GPUs Triton kernels, one each way, are among the ways that are tried: they move a
    fraction of the bytes. Triton comes with torch for CUDA on Linux;
    ``MMFAKD_TRITON=0`` in the environment leaves them out.

    Args:
        channels (int): Channels C of both inputs and of the output; even.
        kernel_size (int): Side of the window in pixels; odd. Defaults to 3.

    Shapes:
        - x: (N, C, H, W).
        - y: (N, C, H', W'). Of another size it stands for its nearest neighbours; it is
          projected at the smaller of both sizes, which is the same and costs least.
        - Output: (N, C, H, W), dtype of ``x``.

    Raises:
        ValueError: For an odd number of channels or an even window, and in
            ``forward`` for inputs of different or unexpected shapes.
        TypeError: In ``forward`` if an input is complex or integer.

    Examples:
        >>> import torch
        >>> from mmfakd.models.layers import LocalCrossAttention
        >>> feature, deeper = torch.rand(2, 8, 6, 6), torch.rand(2, 8, 6, 6)
        >>> LocalCrossAttention(8)(feature, deeper).shape
        torch.Size([2, 8, 6, 6])
    """

    # Pyramids need not resize `y` before.
    resizes = True

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        if not isinstance(channels, (int, Integral)) or channels < 2 or channels % 2:
            raise ValueError(
                f'LocalCrossAttention got channels={channels!r}, expected an even '
                'number, as half of the channels get row offsets and half column '
                'offsets: choose even `mid_channels`.'
            )
        odd = isinstance(kernel_size, (int, Integral)) and kernel_size % 2
        if not odd or kernel_size < 1:
            raise ValueError(
                f'LocalCrossAttention got kernel_size={kernel_size!r}, expected an odd '
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
            y (Tensor): Feature of the deeper level, queries, (N, C, H', W').

        Returns:
            Tensor: Fused feature (N, C, H, W), dtype of ``x``.

        Raises:
            TypeError: If one is complex or integer.
            ValueError: If they are not of shape (N, channels, H, W) with equal N.
        """
        check_real('LocalCrossAttention', x, y)
        if not (
            x.ndim == y.ndim == 4
            and x.shape[:2] == y.shape[:2]
            and x.shape[1] == self.channels
        ):
            raise ValueError(
                f'LocalCrossAttention got features of shape {tuple(x.shape)} and '
                f'{tuple(y.shape)}, expected two of shape (N, {self.channels}, H, W) '
                'with one N: match channels before.'
            )
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        if y.shape[-2:].numel() > x.shape[-2:].numel():
            y = resize(y, x.shape[-2:])
        with no_autocast(x):
            query = _project(y.to(dtype), self.query.weight.to(dtype))
            weight = torch.cat([self.key.weight, self.value.weight]).to(dtype)
            key_value = _project(x.to(dtype), weight)
            offsets = self.row_offset.to(dtype), self.column_offset.to(dtype)
            fused = window_attention(query, key_value, *offsets)
            return fused.to(x.dtype)

    def extra_repr(self) -> str:
        """Summarise the arguments for ``print``."""
        return f'{self.channels}, kernel_size={self.kernel_size}'


def _project(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (N, C, H, W) with weights (channels, C, 1, 1)."""
    if x.shape[1] >= _FEW or x.device.type != 'cpu':
        return F.conv2d(x, weight)
    matrices = weight.flatten(1).expand(len(x), -1, -1)
    return torch.bmm(matrices, x.flatten(2)).unflatten(2, x.shape[2:])
