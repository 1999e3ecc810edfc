# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Slow, literal versions of the layers, written from the paper's equations.

They share no code with the package: the filter is a full complex tensor between
full FFTs, and the attention unfolds keys and values nine-fold. Tests compare
outputs, gradients and training trajectories with them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def high_pass_mask(height: int, width: int, cutoff: float) -> Tensor:
    """Ones, but zeros in [c - r, c + r) of the shifted grid; unshifted (H, W)."""
    mask = torch.ones(height, width)
    ch, cw = int(height / 2), int(width / 2)
    rh, rw = int(cutoff * ch), int(cutoff * cw)
    mask[ch - rh : ch + rh, cw - rw : cw + rw] = 0
    return torch.fft.ifftshift(mask)


def naive_filter(x: Tensor, weight: Tensor, cutoff: float, groups: int = 1) -> Tensor:
    """Filter (N, Ci, H, W) by complex (Ci / groups, Co, H, W): (N, Co, H, W)."""
    height, width = x.shape[-2:]
    spectrum = torch.fft.fft2(x, norm='ortho')
    parts = zip(spectrum.chunk(groups, 1), weight.chunk(groups, 1))
    mixed = torch.cat(
        [torch.einsum('bixy,ioxy->boxy', part, kernel) for part, kernel in parts], 1
    )
    mixed = mixed * high_pass_mask(height, width, cutoff).to(x)
    return torch.fft.ifft2(mixed, norm='ortho').real


class NaiveFrequencyAttention(nn.Module):
    """Global complex filter plus 1x1 convolution, each with a learnable weight."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple,
        high_pass: float = 0.1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        per_group = in_channels // groups
        weight = torch.rand(per_group, out_channels, *size, dtype=torch.complex64)
        self.weight = nn.Parameter(weight / (per_group * out_channels // groups))
        self.local = nn.Conv2d(in_channels, out_channels, 1)
        self.rate1 = nn.Parameter(torch.tensor([0.5]))
        self.rate2 = nn.Parameter(torch.tensor([0.5]))
        self.high_pass = high_pass
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, Ci, H, W) to (N, Co, H, W)."""
        filtered = naive_filter(x, self.weight, self.high_pass, self.groups)
        return self.rate1 * filtered + self.rate2 * self.local(x)

    def famkd_state_dict(self) -> dict:
        """The state under the reference's names."""
        return {
            'weights1': self.weight.detach().clone(),
            'w0.weight': self.local.weight.detach().clone(),
            'w0.bias': self.local.bias.detach().clone(),
            'rate1': self.rate1.detach().clone(),
            'rate2': self.rate2.detach().clone(),
        }


def naive_local_attention(
    query: Tensor, key: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> Tensor:
    """Per-channel attention over 3x3 windows; maps (N, C, H, W), offsets (C/2, 3)."""

    def unfold(feature: Tensor) -> Tensor:
        shape = feature.shape
        return F.unfold(feature, 3, padding=1).view(*shape[:2], 9, *shape[2:])

    offset = torch.cat(
        [
            row[:, :, None].expand(-1, 3, 3),
            column[:, None, :].expand(-1, 3, 3),
        ]
    ).reshape(1, -1, 9, 1, 1)
    weight = (query.unsqueeze(2) * (unfold(key) + offset)).softmax(2)
    return (weight * unfold(value)).sum(2)


class NaiveLocalCrossAttention(nn.Module):
    """Cross attention with nine-fold unfolding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.row_offset = nn.Parameter(torch.randn(channels // 2, 3))
        self.column_offset = nn.Parameter(torch.randn(channels // 2, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two maps (N, C, H, W) to one."""
        return naive_local_attention(
            self.query(y),
            self.key(x),
            self.value(x),
            self.row_offset,
            self.column_offset,
        )
