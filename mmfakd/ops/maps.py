# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Features as maps, and maps of another size."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch.nn.functional as F
from torch import Tensor

from .compiling import is_compiling


def as_map(feature: Tensor) -> Tensor:
    """Take a vector for a map of one pixel.

    Args:
        feature (Tensor): (N, C), or a map, which stays as it is.

    Returns:
        Tensor: (N, C, 1, 1), or the map.
    """
    return feature[..., None, None] if feature.ndim == 2 else feature


def check_channels(name: str, **channels: object) -> None:
    """Raise unless numbers of channels are positive integers.

    Args:
        name (str): Name of the layer, for the message.
        **channels (object): The numbers, by the names of its arguments.

    Raises:
        ValueError: If one is not.
    """
    for argument, number in channels.items():
        if not isinstance(number, Integral) or number < 1:
            raise ValueError(
                f'{name} got {argument}={number!r}, expected a number of channels, a '
                'positive integer.'
            )


def check_map(x: Tensor, channels: int, owner: str) -> None:
    """Refuse what is no map of so many channels.

    Args:
        x (Tensor): The map.
        channels (int): Number of channels C that it must have.
        owner (str): Name of the layer that got it, for the message.

    Raises:
        ValueError: If it is not (N, C, H, W).
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f'{owner} got an input of shape {tuple(x.shape)}, expected '
            f'(N, {channels}, H, W): adapt `in_channels` or the feature.'
        )


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps to the nearest neighbours, where the size differs.

    Args:
        x (Tensor): Maps (N, C, H, W).
        size (Sequence[int]): Height and width to come out.

    Returns:
        Tensor: Maps (N, C, *size).
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if is_compiling() and x.shape[-2:].numel() == 1:
        # Torch's compiler (2.11) cannot write the gradient of `interpolate` here, and
        # what it makes of `expand` writes where it must not.
        return x.repeat(1, 1, *size)
    return F.interpolate(x, size=tuple(size), mode='nearest')
