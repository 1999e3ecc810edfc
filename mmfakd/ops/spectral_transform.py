# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Fourier transforms of real features, from and to lists of frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .compiling import kept
from .half_spectrum import HalfSpectrum

# On CPUs the transforms of maps of at most that many pixels are matrix products:
# these take less time than a fast Fourier transform that has so little to do.
_SMALL = 64

# How the transforms of few operations are computed: as fast Fourier transforms, as one
# product with a matrix, or as a product for each axis.
WAYS = ('fft', 'matrix', 'axes')

# Where so few of the columns are wanted, they are matrix products axis by axis.
_FEW = 0.3


def transform(
    x: Tensor, out: Tensor, grid: HalfSpectrum, way: str | None = None
) -> None:
    """Write frequencies of a feature, frequencies first.

    Args:
        x (Tensor): Feature (N, C, H, W).
        out (Tensor): Where to, complex, (F, G, N, C / G).
        grid (HalfSpectrum): The F frequencies.
        way (str, optional): One of ``WAYS``. Defaults to None, for what is usually
            the fastest one.
    """
    groups = out.shape[1]
    way = way or usual_way(x.shape[-2:], grid, x.device)
    if way == 'matrix':
        forth, _ = kept(_matrices, x)(grid, x.shape[-2], x.dtype)
        spectrum = _complex(x.flatten(2) @ forth).unflatten(1, (groups, -1))
        out.copy_(spectrum.permute(3, 1, 0, 2))
        return
    if way == 'axes':
        axes = kept(_axes, x)(grid, x.shape[-2], x.dtype, x.device)
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


def transform_back(
    spectrum: Tensor, size: Sequence[int], grid: HalfSpectrum, way: str | None = None
) -> Tensor:
    """Undo :func:`transform`; frequencies outside the list are zero.

    Args:
        spectrum (Tensor): Complex, of shape (F, G, N, C / G).
        size (Sequence[int]): Height and width of the feature.
        grid (HalfSpectrum): The F frequencies.
        way (str, optional): As of :func:`transform`.

    Returns:
        Tensor: Feature (N, C, H, W).
    """
    height, width = size
    way = way or usual_way(size, grid, spectrum.device)
    if way == 'matrix':
        _, back = kept(_matrices, spectrum)(grid, height, spectrum.real.dtype)
        maps = spectrum.flatten(1).t().contiguous()
        return _feature(torch.view_as_real(maps).flatten(1) @ back, spectrum, size)
    if way == 'axes':
        dtype, device = spectrum.real.dtype, spectrum.device
        _, rows, columns = kept(_axes, spectrum)(grid, height, dtype, device)
        half_spectrum = rows.mH @ _half_spectrum(spectrum, grid.rows, grid)
        return torch.view_as_real(half_spectrum).flatten(-2) @ columns
    # `s` also pads the columns that the list lacks.
    half_spectrum = _half_spectrum(spectrum, height, grid)
    return torch.fft.irfft2(half_spectrum, s=(height, width), norm='ortho')


def to_half_spectrum(x: Tensor, grid: HalfSpectrum, groups: int, way: str) -> Tensor:
    """Transform a feature in few operations, without any factor.

    Args:
        x (Tensor): Feature (N, C, H, W).
        grid (HalfSpectrum): Frequencies to keep.
        groups (int): Groups G of channels.
        way (str): One of ``WAYS``.

    Returns:
        Tensor: Half spectrum (K, G, N, C / G), its K rows times columns first.
    """
    height = x.shape[-2]
    if way == 'matrix':
        forth, _ = kept(_whole_matrices, x)(grid, height, x.dtype, x.device)
        spectrum = _complex(x.flatten(2) @ forth)
    elif way == 'axes':
        columns, rows, _ = kept(_axes, x)(grid, height, x.dtype, x.device, False)
        spectrum = (rows @ _complex(x @ columns)).flatten(2)
    else:
        half = torch.fft.rfft2(x)[..., : grid.columns]
        if grid.rows < height:
            half = torch.cat([half[..., k, :] for _, k in grid.shared_rows(height)], -2)
        spectrum = half.flatten(2)
    return spectrum.unflatten(1, (groups, -1)).permute(3, 1, 0, 2).contiguous()


def from_half_spectrum(
    spectrum: Tensor, size: Sequence[int], grid: HalfSpectrum, way: str
) -> Tensor:
    """Undo :func:`to_half_spectrum`, but for a factor of H * W.

    Args:
        spectrum (Tensor): Half spectrum (K, G, N, C / G); over the rows of columns
            that are their own mirror image it is Hermitian.
        size (Sequence[int]): Height H and width W of the feature.
        grid (HalfSpectrum): Its frequencies.
        way (str): One of ``WAYS``.

    Returns:
        Tensor: Feature (N, C, H, W).
    """
    (height, width), real = size, spectrum.real.dtype
    if way == 'matrix':
        _, back = kept(_whole_matrices, spectrum)(grid, height, real, spectrum.device)
        maps = spectrum.flatten(1).t().contiguous()
        return _feature(torch.view_as_real(maps).flatten(1) @ back, spectrum, size)
    half = spectrum.permute(2, 1, 3, 0).unflatten(3, (grid.rows, grid.columns))
    if way == 'axes':
        axes = kept(_axes, spectrum)(grid, height, real, spectrum.device, False)
        _, rows, columns = axes
        half = rows.mH @ half.contiguous()
        y = torch.view_as_real(half).flatten(-2) @ columns
        return y.flatten(1, 2)
    if grid.rows < height:
        full = half.new_zeros(*half.shape[:3], height, grid.columns)
        for source, to in grid.shared_rows(height):
            full[..., to, :].copy_(half[..., source, :])
        half = full
    # It makes a copy of its own, and with it the transposition.
    return torch.fft.irfft2(half, s=(height, width), norm='forward').flatten(1, 2)


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


def usual_way(size: Sequence[int], grid: HalfSpectrum, device: torch.device) -> str:
    """Tell which transforms are usually the fastest.

    Args:
        size (Sequence[int]): Height and width of the feature.
        grid (HalfSpectrum): Frequencies that are wanted.
        device (torch.device): Where they are computed.

    Returns:
        str: One of ``WAYS``.
    """
    if device.type == 'cpu' and size[0] * size[1] <= _SMALL:
        return 'matrix'
    return 'axes' if grid.columns <= _FEW * (grid.width // 2 + 1) else 'fft'


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


@lru_cache(maxsize=32)
def _whole_matrices(
    grid: HalfSpectrum, height: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Both transforms of all K places of a half spectrum, without factors.

    Returns:
        tuple[Tensor, Tensor]: From pixels, (H * W, 2 K), and back, (2 K, H * W).
    """
    columns, rows, back = _axes(grid, height, torch.float64, device, False)
    # From a pixel first to its row's columns, then to all rows of them.
    waves = _complex(columns)[:, None].transpose(1, 2)
    waves = rows.t()[:, None, :, None] * waves.transpose(1, 2)[None]
    forth = torch.view_as_real(waves.flatten(2)).flatten(2).flatten(0, 1)
    copies = forth.new_full((grid.rows, grid.columns, 2), 2)
    for column in grid.own_columns:
        copies[:, column].fill_(1)
    back = (forth * copies.flatten()).t()
    return forth.to(dtype), back.to(dtype).contiguous()


@lru_cache(maxsize=128)
def _axes(
    grid: HalfSpectrum,
    height: int,
    dtype: torch.dtype,
    device: torch.device,
    normal: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of one axis each, as matrices, made on the device.

    They are orthonormal, or, unless ``normal``, without factors.

    Returns:
        tuple[Tensor, Tensor, Tensor]: From pixels to columns, (W, 2 columns), real and
        imaginary parts in turn; from pixels to rows, (R, H), complex; from columns to
        pixels, (2 columns, W).
    """

    def waves(pixels: int, frequencies: Tensor) -> Tensor:
        # Whole periods are left out of the integers, which are exact.
        position = torch.arange(pixels, device=device) * frequencies[:, None] % pixels
        angle = position.to(torch.float64) * (-2 * math.pi / pixels)
        size = pixels**-0.5 if normal else 1.0
        return torch.polar(torch.full_like(angle, size), angle)

    with torch.inference_mode(False):
        columns = waves(grid.width, torch.arange(grid.columns, device=device))
        rows = waves(height, torch.arange(height, device=device))
        rows = torch.cat([rows[source] for _, source in grid.shared_rows(height)])
        forth = torch.view_as_real(columns.t().contiguous()).flatten(1)
        # A frequency stands for its mirror image, too, unless it is its own.
        copies = torch.full((grid.columns, 1), 2.0, dtype=torch.float64, device=device)
        for column in grid.own_columns:
            copies[column].fill_(1)
        back = torch.view_as_real((columns * copies).t().contiguous()).flatten(1)
        rows = torch.complex(rows.real.to(dtype), rows.imag.to(dtype))
        return forth.to(dtype), rows, back.t().to(dtype).contiguous()
