# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Slow, literal versions of the layers, written from the paper's equations.

They share no code with the layers: the filter is a full complex tensor between full
FFTs, and the attention unfolds keys and values nine-fold. The benchmark measures the
layers against them, and tests compare outputs, gradients and training trajectories.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention


def high_pass_mask(height: int, width: int, cutoff: float) -> Tensor:
    """Make the published mask.

    Args:
        height (int): Height.
        width (int): Width.
        cutoff (float): Cut-off r as a fraction of the Nyquist frequency.

    Returns:
        Tensor: Ones, but zeros in [c - r, c + r) of the shifted grid; unshifted (H, W).
    """
    mask = torch.ones(height, width)
    ch, cw = int(height / 2), int(width / 2)
    rh, rw = int(cutoff * ch), int(cutoff * cw)
    mask[ch - rh : ch + rh, cw - rw : cw + rw] = 0
    return torch.fft.ifftshift(mask)


def naive_filter(x: Tensor, weight: Tensor, cutoff: float, groups: int = 1) -> Tensor:
    """Filter a feature in the Fourier domain.

    Args:
        x (Tensor): Feature (N, Ci, H, W).
        weight (Tensor): Complex, (Ci / groups, Co, H, W).
        cutoff (float): Cut-off of the mask.
        groups (int): Groups of channels that are filtered apart. Defaults to 1.

    Returns:
        Tensor: Feature (N, Co, H, W).
    """
    height, width = x.shape[-2:]
    spectrum = torch.fft.fft2(x, norm='ortho')
    parts = zip(spectrum.chunk(groups, 1), weight.chunk(groups, 1))
    mixed = torch.cat(
        [torch.einsum('bixy,ioxy->boxy', part, kernel) for part, kernel in parts], 1
    )
    mixed = mixed * high_pass_mask(height, width, cutoff).to(x)
    return torch.fft.ifft2(mixed, norm='ortho').real


class NaiveFrequencyAttention(nn.Module):
    """Global complex filter plus 1x1 convolution, each with a learnable weight.

    Args:
        in_channels (int): Channels Ci of the input.
        out_channels (int): Channels Co of the output.
        size (tuple[int, int]): Height and width of the input.
        high_pass (float): Cut-off of the mask. Defaults to 0.1.
        groups (int): Groups of channels that are filtered apart. Defaults to 1.

    Shapes:
        - Input: (N, Ci, H, W).
        - Output: (N, Co, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
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
        """Apply both branches.

        Args:
            x (Tensor): Feature (N, Ci, H, W).

        Returns:
            Tensor: Feature (N, Co, H, W).
        """
        filtered = naive_filter(x, self.weight, self.high_pass, self.groups)
        return self.rate1 * filtered + self.rate2 * self.local(x)

    def famkd_state_dict(self) -> dict[str, Tensor]:
        """Give the state under the names of the published implementation.

        Returns:
            dict[str, Tensor]: Copies of weights.
        """
        state = self.state_dict()
        state['weights1'] = state.pop('weight')
        return {name.replace('local', 'w0'): z.clone() for name, z in state.items()}


def naive_local_attention(
    query: Tensor, key: Tensor, value: Tensor, row: Tensor, column: Tensor
) -> Tensor:
    """Let queries attend to 3x3 windows, channel by channel.

    Args:
        query (Tensor): Queries (N, C, H, W).
        key (Tensor): Keys (N, C, H, W).
        value (Tensor): Values (N, C, H, W).
        row (Tensor): Offsets of the rows, for the first half of the channels, (C/2, 3).
        column (Tensor): Offsets of the columns, for the second half, (C/2, 3).

    Returns:
        Tensor: Averaged values (N, C, H, W).
    """

    def unfold(feature: Tensor) -> Tensor:
        shape = feature.shape
        return F.unfold(feature, 3, padding=1).view(*shape[:2], 9, *shape[2:])

    rows, columns = row[:, :, None], column[:, None, :]
    offset = torch.cat([rows.expand(-1, 3, 3), columns.expand(-1, 3, 3)])
    offset = offset.reshape(1, -1, 9, 1, 1)
    weight = (query.unsqueeze(2) * (unfold(key) + offset)).softmax(2)
    return (weight * unfold(value)).sum(2)


class NaiveLocalCrossAttention(nn.Module):
    """Cross attention with nine-fold unfolding.

    Args:
        channels (int): Channels C of both inputs and of the output.

    Shapes:
        - x, y: (N, C, H, W).
        - Output: (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.row_offset = nn.Parameter(torch.randn(channels // 2, 3))
        self.column_offset = nn.Parameter(torch.randn(channels // 2, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuse two features.

        Args:
            x (Tensor): Keys and values, (N, C, H, W).
            y (Tensor): Queries, (N, C, H, W).

        Returns:
            Tensor: Fused feature (N, C, H, W).
        """
        offsets = self.row_offset, self.column_offset
        return naive_local_attention(
            self.query(y), self.key(x), self.value(x), *offsets
        )


class Float32(nn.Module):
    """A layer that is computed in float32 under mixed precision.

    The naive layers know no precision; half-precision Fourier transforms fail, and
    unscaled products overflow.

    Args:
        layer (nn.Module): The layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            *inputs (Tensor): Features.

        Returns:
            Tensor: What the layer gives, of the dtype of the first input.
        """
        with torch.autocast(inputs[0].device.type, enabled=False):
            return self.layer(*(x.float() for x in inputs)).to(inputs[0].dtype)


def our_layers(model: nn.Module) -> list[nn.Module]:
    """Find the layers that may have a naive version.

    Args:
        model (nn.Module): The model.

    Returns:
        list[nn.Module]: The layers in it.
    """
    kinds = FrequencyAttention, LocalCrossAttention
    return [module for module in model.modules() if isinstance(module, kinds)]


def has_naive_version(layer: nn.Module) -> bool:
    """Tell whether a layer has a naive version.

    Args:
        layer (nn.Module): The layer.

    Returns:
        bool: True for dense filters with both branches and for windows of 3 x 3.
    """
    if isinstance(layer, FrequencyAttention):
        return bool(layer.size and layer.with_global and layer.with_local)
    return isinstance(layer, LocalCrossAttention) and layer.kernel_size == 3


def naive_layer(layer: nn.Module) -> nn.Module:
    """Build the naive version of a layer, with weights of its own.

    Args:
        layer (nn.Module): The layer.

    Returns:
        nn.Module: A layer of the same function and size.

    Raises:
        ValueError: If there is no naive version of it.
    """
    if not has_naive_version(layer):
        raise ValueError(
            f'no naive version of {layer}: there is one of FrequencyAttention with '
            '`size` and both branches, and of LocalCrossAttention with kernel_size=3.'
        )
    if isinstance(layer, FrequencyAttention):
        channels = layer.in_channels, layer.out_channels
        return Float32(
            NaiveFrequencyAttention(
                *channels, layer.grid, layer.high_pass, layer.groups
            )
        )
    assert isinstance(layer, LocalCrossAttention)
    return Float32(NaiveLocalCrossAttention(layer.channels))


def use_naive_layers(model: nn.Module) -> None:
    """Replace our layers by their naive versions.

    Args:
        model (nn.Module): The model, changed in place.

    Raises:
        ValueError: If one of our layers has no naive version.
    """
    ours = our_layers(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child in ours:
                setattr(parent, name, naive_layer(child))
