# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Fourier transforms of real features, from and to lists of frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .half_spectrum import HalfSpectrum

# On CPUs the transforms of maps of at most that many pixels are matrix products:
# these take less time than a fast Fourier transform that has so little to do.
_SMALL = 64

# Where so few of the columns are wanted, they are matrix products axis by axis.
_FEW = 0.3


def transform(x: Tensor, out: Tensor, grid: HalfSpectrum) -> None:
    """Write frequencies of a feature, frequencies first.

    Args:
        x (Tensor): Feature (N, C, H, W).
        out (Tensor): Where to, complex, (F, G, N, C / G).
        grid (HalfSpectrum): The F frequencies.
    """
    groups = out.shape[1]
    if _is_small(x, x.shape[-2:]):
        forth, _ = _kept(_matrices, x)(grid, x.shape[-2], x.dtype)
        spectrum = _complex(x.flatten(2) @ forth).unflatten(1, (groups, -1))
        out.copy_(spectrum.permute(3, 1, 0, 2))
        return
    if _are_few(grid):
        axes = _kept(_axes, x)(grid, x.shape[-2], x.dtype, x.device)
        columns, rows, _ = axes
        spectrum = rows @ _complex(x @ columns)
    else:
        spectrum = torch.fft.rfft2(x, norm='ortho')
    spectrum = spectrum.unflatten(1, (groups, -1)).permute(3, 4, 1, 0, 2)
    bulk, halves = grid.parts(out)
    for to, source in grid.shared_rows(len(spectrum)):
        bulk[to].copy_(spectrum[source, grid.bulk_columns])
    own = _own_columns(spectrum, grid)
    halves.copy_(own[: grid.half_rows].transpose(0, 1))


def transform_back(spectrum: Tensor, size: Sequence[int], grid: HalfSpectrum) -> Tensor:
    """Undo :func:`transform`; frequencies outside the list are zero.

    Args:
        spectrum (Tensor): Complex, of shape (F, G, N, C / G).
        size (Sequence[int]): Height and width of the feature.
        grid (HalfSpectrum): The F frequencies.

    Returns:
        Tensor: Feature (N, C, H, W).
    """
    height, width = size
    if _is_small(spectrum, size):
        _, back = _kept(_matrices, spectrum)(grid, height, spectrum.real.dtype)
        maps = spectrum.flatten(1).t().contiguous()
        return _feature(torch.view_as_real(maps).flatten(1) @ back, spectrum, size)
    if _are_few(grid):
        dtype, device = spectrum.real.dtype, spectrum.device
        _, rows, columns = _kept(_axes, spectrum)(grid, height, dtype, device)
        half_spectrum = rows.mH @ _half_spectrum(spectrum, grid.rows, grid)
        return torch.view_as_real(half_spectrum).flatten(-2) @ columns
    # `s` also pads the columns that the list lacks.
    half_spectrum = _half_spectrum(spectrum, height, grid)
    return torch.fft.irfft2(half_spectrum, s=(height, width), norm='ortho')


def _half_spectrum(spectrum: Tensor, height: int, grid: HalfSpectrum) -> Tensor:
    """Frequencies (F, G, N, C / G) in a half spectrum (N, C, H, columns)."""
    create = spectrum.new_empty if grid.rows == height else spectrum.new_zeros
    rows = create(height, grid.columns, *spectrum.shape[1:])
    bulk, halves = grid.parts(spectrum)
    for source, to in grid.shared_rows(height):
        rows[to, grid.bulk_columns].copy_(bulk[source])
    own, halves = _own_columns(rows, grid), halves.transpose(0, 1)
    mirrored = (grid.rows - 1) // 2
    own[: grid.half_rows].copy_(halves)
    own[height - mirrored :].copy_(halves[1 : mirrored + 1].flip(0).conj())
    # The complex-to-real transform is undefined unless frequencies that are their own
    # mirror images are real, and backends differ.
    real = own[:: height // 2] if height == 2 * (grid.half_rows - 1) else own[:1]
    torch.view_as_real(real)[..., 1] = 0
    # Of contiguous matrices the transposition is a fast one.
    maps = rows.flatten(2).flatten(0, 1).t().contiguous()
    return _feature(maps, spectrum, (height, grid.columns))


def _own_columns(half_spectrum: Tensor, grid: HalfSpectrum) -> Tensor:
    """Columns (H, 1 or 2, ...) that are their own mirror image."""
    own = grid.own_columns
    return half_spectrum[:, :1] if len(own) == 1 else half_spectrum[:, :: own[1]]


def _kept(matrices: Any, like: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """A function that keeps what it made, unless it is for a tensor without data.

    PyTorch's fake tensors claim to lie on a real device, and mix with no others.
    """
    return matrices.__wrapped__ if type(like).__name__ == 'FakeTensor' else matrices


def _is_small(tensor: Tensor, size: Sequence[int]) -> bool:
    """Whether matrix products are the faster transforms."""
    return tensor.device.type == 'cpu' and size[0] * size[1] <= _SMALL


def _are_few(grid: HalfSpectrum) -> bool:
    """Whether few of the columns of the half spectrum are wanted."""
    return grid.columns <= _FEW * (grid.width // 2 + 1)


def _complex(numbers: Tensor) -> Tensor:
    """Real and imaginary parts in turn, (..., 2 F), to complex numbers (..., F)."""
    return torch.view_as_complex(numbers.unflatten(-1, (-1, 2)))


def _feature(maps: Tensor, like: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (G * N * C / G, H * W) to (N, C, H, W), G, N, C as of (F, G, N, C / G)."""
    maps = maps.view(*like.shape[1:], *size).transpose(0, 1)
    return maps.flatten(1, 2)


@lru_cache(maxsize=32)
def _matrices(
    grid: HalfSpectrum, height: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Both transforms as matrices.

    Returns:
        tuple[Tensor, Tensor]: From pixels, (H * W, 2 F), and back, (2 F, H * W), real
        and imaginary parts in turn.
    """
    with torch.inference_mode(False):
        # Whatever the default device is.
        count = height * grid.width
        pixels = torch.eye(count, dtype=torch.float64, device='cpu')
        pixels = pixels.view(-1, height, grid.width)
        half = torch.fft.rfft2(pixels, norm='ortho').permute(1, 2, 0)
        rows = [half[source, : grid.columns] for _, source in grid.shared_rows(height)]
        forth = torch.view_as_real(grid.compact(torch.cat(rows)).contiguous())
        back = forth * grid.multiplicity(forth)[:, None, None]
        forth, back = (z.transpose(1, 2).flatten(0, 1).to(dtype) for z in (forth, back))
        return forth.t().contiguous(), back


@lru_cache(maxsize=128)
def _axes(
    grid: HalfSpectrum, height: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of one axis each, as matrices, made on the device.

    Returns:
        tuple[Tensor, Tensor, Tensor]: From pixels to columns, (W, 2 columns), real and
        imaginary parts in turn; from pixels to rows, (R, H), complex; from columns to
        pixels, (2 columns, W).
    """

    def waves(pixels: int, frequencies: Tensor) -> Tensor:
        # Whole periods are left out of the integers, which are exact.
        position = torch.arange(pixels, device=device) * frequencies[:, None] % pixels
        angle = position.to(torch.float64) * (-2 * math.pi / pixels)
        return torch.polar(torch.full_like(angle, pixels**-0.5), angle)

    with torch.inference_mode(False):
        columns = waves(grid.width, torch.arange(grid.columns, device=device))
        rows = waves(height, torch.arange(height, device=device))
        rows = torch.cat([rows[source] for _, source in grid.shared_rows(height)])
        forth = torch.view_as_real(columns.t().contiguous()).flatten(1)
        # A frequency stands for its mirror image, too, unless it is its own.
        copies = torch.full((grid.columns, 1), 2.0, dtype=torch.float64, device=device)
        copies[list(grid.own_columns)] = 1
        back = torch.view_as_real((columns * copies).t().contiguous()).flatten(1)
        rows = torch.complex(rows.real.to(dtype), rows.imag.to(dtype))
        return forth.to(dtype), rows, back.t().to(dtype).contiguous()
