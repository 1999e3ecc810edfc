# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfakd.ops import spectral_transform
from mmfakd.ops.half_spectrum import HalfSpectrum
from mmfakd.ops.spectral_transform import (
    WAYS,
    from_half_spectrum,
    to_half_spectrum,
    transform,
    transform_back,
)


@pytest.fixture(params=['fft', 'matrix', 'axes'])
def _each(request, monkeypatch):
    """One of the ways to compute the transforms, for everything."""
    small, few = dict(fft=(0, 0), matrix=(10**4, 0), axes=(0, 1))[request.param]
    monkeypatch.setattr(spectral_transform, '_SMALL', small)
    monkeypatch.setattr(spectral_transform, '_FEW', few)


def listed(x, grid, groups=2):
    """The transform of a feature (N, C, H, W): (F, G, N, C / G)."""
    count = len(grid.compact(torch.empty(grid.rows, grid.columns)))
    dtype = torch.complex(x, x).dtype
    out = torch.empty(count, groups, len(x), x.shape[1] // groups, dtype=dtype)
    transform(x, out, grid)
    return out


@pytest.mark.usefixtures('_each')
@pytest.mark.parametrize(
    'size', [(1, 1), (1, 2), (2, 1), (2, 2), (1, 7), (7, 1), (8, 8), (7, 8), (8, 7)]
)
def test_is_the_half_spectrum(size):
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    grid = HalfSpectrum(size[0], size[1] // 2 + 1, size[1])
    spectrum = listed(x, grid)
    half = torch.fft.rfft2(x, norm='ortho')
    half = half.unflatten(1, (2, 2)).permute(3, 4, 1, 0, 2)
    assert torch.allclose(spectrum, grid.compact(half), atol=1e-12)
    assert torch.allclose(transform_back(spectrum, size, grid), x, atol=1e-12)


@pytest.mark.usefixtures('_each')
@pytest.mark.parametrize('size', [(4, 4), (5, 8), (9, 9), (8, 5), (6, 7)])
def test_frequencies_outside_the_list_are_cut(size):
    """Three rows and columns of frequencies: -1, 0 and 1, and 0, 1 and 2."""
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    grid = HalfSpectrum(3, 3, size[1])
    full = torch.fft.fft2(x, norm='ortho')
    row = torch.fft.fftfreq(size[0], 1 / size[0]).round()
    column = torch.fft.fftfreq(size[1], 1 / size[1]).round()
    full *= (row.abs() <= 1)[:, None] & (column.abs() <= 2)
    expected = torch.fft.ifft2(full, norm='ortho').real
    actual = transform_back(listed(x, grid, groups=1), size, grid)
    assert torch.allclose(actual, expected, atol=1e-12)


@pytest.mark.usefixtures('_each')
@pytest.mark.parametrize('size', [(1, 1), (1, 4), (7, 7), (8, 8), (6, 9)])
def test_imaginary_parts_of_real_frequencies_are_ignored(size):
    """Backends disagree about them."""
    grid = HalfSpectrum(size[0], size[1] // 2 + 1, size[1])
    spectrum = listed(torch.randn(2, 2, *size), grid)
    expected = transform_back(spectrum, size, grid)
    for index in grid.own_mirror_images:
        spectrum[index] += 1j
    assert torch.allclose(transform_back(spectrum, size, grid), expected, atol=1e-6)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
    ('size', 'rows', 'columns'),
    [((1, 1), 1, 1), ((7, 8), 7, 5), ((8, 7), 8, 4), ((6, 9), 3, 3), ((9, 4), 3, 3)],
)
def test_half_spectra_without_factors(size, rows, columns, way):
    """Whole ones, and of the rows -1, 0 and 1 and the columns 0, 1 and 2."""
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    grid = HalfSpectrum(rows, columns, size[1])
    row = torch.fft.fftfreq(size[0], 1 / size[0]).round()
    half = torch.fft.rfft2(x)
    half[..., row.abs() > rows // 2, :] = 0
    half[..., columns:] = 0
    kept = half[..., row.abs() <= rows // 2, :columns]
    expected = kept.flatten(2).unflatten(1, (2, 2)).permute(3, 1, 0, 2)
    spectrum = to_half_spectrum(x, grid, 2, way)
    assert torch.allclose(spectrum, expected, atol=1e-12)
    back = torch.fft.irfft2(half, s=size, norm='forward')
    actual = from_half_spectrum(spectrum, size, grid, way)
    assert torch.allclose(actual, back, atol=1e-11)


@pytest.mark.parametrize('grid', [HalfSpectrum(8, 5, 8), HalfSpectrum(17, 9, 336)])
def test_matrices_are_exact_in_single_precision(grid):
    height = 200 if grid.width == 336 else 8
    x = torch.randn(8, 2, height, grid.width)
    error = listed(x, grid).to(torch.complex128) - listed(x.double(), grid)
    assert error.abs().max() < 5e-6


def test_few_frequencies_of_large_maps_need_no_fourier_transform(monkeypatch):
    """Which computes all of them, and takes several times as long."""
    monkeypatch.delattr(torch.fft, 'rfft2')
    monkeypatch.delattr(torch.fft, 'irfft2')
    x, grid = torch.randn(1, 2, 48, 64), HalfSpectrum(17, 9, 64)
    low = transform_back(listed(x, grid), (48, 64), grid)
    again = transform_back(listed(low, grid), (48, 64), grid)
    assert torch.allclose(again, low, atol=1e-5)
