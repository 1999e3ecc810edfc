# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A filter whose frequencies are cycles per pixel, for the study of connectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor

from mmfakd.models.layers import FrequencyAttention
from mmfakd.ops.filter_storage import unpack_filter


@MODELS.register_module()
class KernelFilter(FrequencyAttention):
    r"""Filter with one weight per frequency in cycles per pixel.

    .. math::
        Y = \gamma_1 \, \mathcal{F}^{-1}(K) * X + \gamma_2 \, (W_{1 \times 1} X + b)

    The filter of :class:`FrequencyAttention` on a grid of n x n frequencies, taken as
    those of a kernel of n x n pixels, which slides over a map of any size; there is no
    high pass. A map of more pixels has more periods of the same waves, where ``modes``
    stretch the waves to the map.

    Args:
        in_channels (int): Channels Ci of the input.
        out_channels (int): Channels Co of the output.
        kernel_size (int): Height and width n in pixels, an odd number. Defaults to 9.

    Shapes:
        - Input: (N, Ci, H, W).
        - Output: (N, Co, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 9
    ) -> None:
        super().__init__(in_channels, out_channels, modes=kernel_size, high_pass=0)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x (Tensor): Feature (N, Ci, H, W).

        Returns:
            Tensor: Feature (N, Co, H, W).
        """
        half = unpack_filter(self.filter, self.copies, self.grid)
        kernel = torch.fft.irfft2(half, self.grid, dim=(0, 1)).squeeze(2)
        middle = self.grid[0] // 2
        kernel = kernel.roll((middle, middle), (0, 1)) * self.gate_global
        # PyTorch's convolution correlates.
        kernel = kernel.flip(0, 1).permute(3, 2, 0, 1)
        local = F.pad(self.local.weight * self.gate_local, [middle] * 4)
        bias = self.local.bias * self.gate_local
        return F.conv2d(x, kernel + local, bias, padding=middle)
