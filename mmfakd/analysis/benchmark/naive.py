# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The naive versions of the layers, which the tests compare with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention

from .naive_layers import NaiveFrequencyAttention, NaiveLocalCrossAttention


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
        layer (nn.Module): A :class:`FrequencyAttention` or
            :class:`LocalCrossAttention`.

    Returns:
        bool: True for dense filters with both branches and for windows of 3 x 3.
    """
    if isinstance(layer, FrequencyAttention):
        return bool(layer.size and layer.with_global and layer.with_local)
    return isinstance(layer, LocalCrossAttention) and layer.kernel_size == 3


def naive_layer(layer: nn.Module) -> nn.Module:
    """Build the naive version of a layer, with weights of its own.

    Args:
        layer (nn.Module): A :class:`FrequencyAttention` or
            :class:`LocalCrossAttention`.

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
    if isinstance(layer, LocalCrossAttention):
        return Float32(NaiveLocalCrossAttention(layer.channels))
    assert isinstance(layer, FrequencyAttention)
    return Float32(
        NaiveFrequencyAttention(
            layer.in_channels,
            layer.out_channels,
            layer.size,
            layer.high_pass,
            layer.groups,
        )
    )


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
            if any(child is layer for layer in ours):
                setattr(parent, name, naive_layer(child))
