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


def check_real(owner: str, *features: Tensor) -> None:
    """Refuse complex features and integers.

    Args:
        owner (str): Name of what got them, for the message; may be empty.
        *features (Tensor): The features, of any shape.

    Raises:
        TypeError: If one is complex or integer.
    """
    for x in features:
        if not x.dtype.is_floating_point:
            dtypes = ' and '.join(str(feature.dtype) for feature in features)
            got = f'{owner} got features of dtype {dtypes}'.lstrip()
            raise TypeError(
                f'{got}, expected real floating point ones: give the features as they '
                'are before a Fourier transform, which is done inside where it is '
                'needed, and integers by `.float()`.'
            )


def check_map(x: Tensor, channels: int, owner: str) -> None:
    """Refuse what is no real map of so many channels.

    Args:
        x (Tensor): The map.
        channels (int): Number of channels C that it must have.
        owner (str): Name of the layer that got it, for the message.

    Raises:
        TypeError: If it is complex or integer.
        ValueError: If it is not (N, C, H, W).
    """
    check_real(owner, x)
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
