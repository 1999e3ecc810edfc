# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Resizing and pooling that are the same each time they run."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .no_autocast import no_autocast

# What PyTorch asks for before it lets cuBLAS multiply matrices deterministically.
_CUBLAS = 'CUBLAS_WORKSPACE_CONFIG', ':4096:8'


def prepare_cublas() -> None:
    """Let products of matrices run on GPUs where determinism is asked for.

    ``torch.use_deterministic_algorithms(True)``, which MMEngine calls for
    ``randomness=dict(deterministic=True)``, refuses them unless a variable of the
    environment is set before the first one.
    """
    if torch.are_deterministic_algorithms_enabled():
        os.environ.setdefault(*_CUBLAS)


def resize_bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps bilinearly, the corners of pixels aligned.

    Where deterministic algorithms are asked for it is two products of matrices, as
    PyTorch's gradient adds up in any order on GPUs, and is refused.

    Args:
        x (Tensor): Maps (N, C, H, W).
        size (Sequence[int]): Height and width to come out.

    Returns:
        Tensor: Maps (N, C, *size).
    """
    if not torch.are_deterministic_algorithms_enabled():
        return F.interpolate(x, size=tuple(size), mode='bilinear')
    return _separable(x, *(_hats(n, k) for n, k in zip(x.shape[-2:], size)))


def average_pool(x: Tensor, size: int) -> Tensor:
    """Pool maps to so many rows and columns, as ``adaptive_avg_pool2d`` does.

    Where deterministic algorithms are asked for, likewise by products of matrices.

    Args:
        x (Tensor): Maps (N, C, H, W).
        size (int): Rows and columns to come out.

    Returns:
        Tensor: Maps (N, C, size, size).
    """
    # A single pixel is PyTorch's mean.
    if size == 1 or not torch.are_deterministic_algorithms_enabled():
        return F.adaptive_avg_pool2d(x, size)
    return _separable(x, *(_boxes(n, size) for n in x.shape[-2:]))


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply a matrix to each axis of a map."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    with no_autocast(x):
        rows, columns = (m.to(x.device, dtype) for m in (rows, columns))
        return (rows @ (x.to(dtype) @ columns.t())).to(x.dtype)


def _hats(pixels: int, count: int) -> Tensor:
    """Weights (count, pixels) of linear interpolation."""
    place = (torch.arange(count, dtype=torch.float64) + 0.5) * pixels / count - 0.5
    place = place.clamp(0, pixels - 1)
    # Each point lies under the hats of its two neighbours.
    distance = place[:, None] - torch.arange(pixels, dtype=torch.float64)
    return (1 - distance.abs()).clamp_min(0)


def _boxes(pixels: int, count: int) -> Tensor:
    """Weights (count, pixels) of the mean over adjoining, perhaps shared, pixels."""
    number = torch.arange(count)[:, None]
    pixel = torch.arange(pixels)
    first = number * pixels // count
    behind = -(-(number + 1) * pixels // count)
    inside = ((first <= pixel) & (pixel < behind)).double()
    return inside / inside.sum(1, keepdim=True)
