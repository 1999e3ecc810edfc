# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Few operations compute what the blocks of SpectralFilter do, and its gradients."""

import pytest
import torch

from mmfakd.ops.filter_tables import input_tables
from mmfakd.ops.half_spectrum import HalfSpectrum
from mmfakd.ops.pixel_filter import PixelFilter
from mmfakd.ops.spectral_filter_at_once import SpectralFilterAtOnce
from mmfakd.ops.spectral_transform import WAYS, from_half_spectrum, to_half_spectrum
from tests.helpers.filters import by_blocks, gradients, make_filter

DENSE = [(1, 1), (2, 2), (1, 4), (7, 7), (8, 8), (8, 7), (20, 21)]
MODES = [
    (modes, size)
    for modes in [(12, 12), (7, 7), (8, 8), (5, 6)]
    for size in [(8, 8), (7, 9), (3, 4), (1, 1), (25, 42)]
]
CASES = [*((dict(size=size), size) for size in DENSE)]
CASES += [(dict(modes=modes), size) for modes, size in MODES]


def assert_same(actual, expected):
    for a, b in zip(actual, expected):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-10 * b.abs().max()


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(('kwargs', 'size'), CASES)
@pytest.mark.parametrize(('groups', 'with_local'), [(1, True), (2, True), (1, False)])
def test_equals_blocks(kwargs, size, groups, with_local, way):
    kwargs = dict(kwargs, groups=groups, with_local=with_local, high_pass=0.3)
    layer, params, x, grad = make_filter(size, **kwargs)
    expected = gradients(by_blocks(layer, params, x), params, x, grad)
    tables = input_tables(layer.grid, layer.high_pass, x, torch.double)
    whole = tables.grid == HalfSpectrum.whole(*size)
    for merge in (False, True) if groups == 1 and with_local and whole else (False,):
        for real in (False, True):
            y = SpectralFilterAtOnce.apply(x, *params, tables, merge, way, real)
            assert_same(gradients(y, params, x, grad), expected)


def test_maps_of_one_pixel():
    layer, params, x, grad = make_filter((1, 1), size=1)
    expected = gradients(by_blocks(layer, params, x), params, x, grad)
    assert_same(gradients(PixelFilter.apply(x, *params), params, x, grad), expected)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('size', [(1, 1), (1, 4), (7, 8), (9, 5)])
def test_transforms_without_factors(size, way):
    x = torch.randn(3, 4, *size, dtype=torch.double)
    grid = HalfSpectrum.whole(*size)
    half = to_half_spectrum(x, grid, 2, way)
    assert half.is_contiguous() and half.shape[1:] == (2, 3, 2)
    expected = torch.fft.rfft2(x).flatten(2).unflatten(1, (2, 2)).permute(3, 1, 0, 2)
    assert torch.allclose(half, expected)
    back = from_half_spectrum(half, size, grid, way)
    assert torch.allclose(back, x * size[0] * size[1])


@pytest.mark.parametrize('half', [torch.float16, torch.bfloat16])
def test_features_in_half_precision(half):
    """Computed in float32; the result has their dtype."""
    layer, params, x, grad = make_filter((8, 8), size=8)
    params = [p.float().detach().requires_grad_() for p in params]
    x = x.detach().to(half).requires_grad_()
    tables = input_tables(layer.grid, layer.high_pass, x, torch.float)
    for merge in (False, True):
        y = SpectralFilterAtOnce.apply(x, *params, tables, merge, 'fft')
        assert y.dtype == half
        found = gradients(y, params, x, grad.to(half))
        assert found[1].dtype == half and found[2].dtype == torch.float
        wide = x.detach().float().requires_grad_()
        y = SpectralFilterAtOnce.apply(wide, *params, tables, merge, 'fft')
        expected = gradients(y, params, wide, grad.to(half).float())
        for a, b in zip(found, expected):
            assert (a - b).abs().max() <= 1e-2 * b.abs().max()


def test_gradients_are_laid_out_as_parameters():
    """Else autograd would copy them."""
    layer, params, x, grad = make_filter((8, 8), size=8)
    tables = input_tables(layer.grid, layer.high_pass, x, torch.double)
    for merge in (False, True):
        y = SpectralFilterAtOnce.apply(x, *params, tables, merge, 'fft')
        for p, g in zip(params, torch.autograd.grad(y, params, grad)):
            assert g.shape == p.shape
            assert g.squeeze().stride() == p.squeeze().stride()


def test_tables_name_each_coefficient():
    """Of a filter of the input's size; coefficients are stored once."""
    size = (6, 8)
    tables = input_tables(size, 0.1, torch.empty(1, 1, *size), torch.double)
    whole = HalfSpectrum.whole(*size)
    count = len(whole.compact(torch.empty(6, 5)))
    assert torch.equal(tables.places.unique(), torch.arange(count))
    assert tables.weights.shape == (1, count, 1, 1, 1, 2)
    # Each stands for itself and its mirror image, in units of both transforms.
    assert tables.counts.sum() == pytest.approx(1)
    again = input_tables(size, 0.1, torch.empty(9, 9, *size), torch.double)
    assert again is tables
