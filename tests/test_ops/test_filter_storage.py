# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is stored of a filter, and what comes out of it for inputs of each size."""

import pytest
import torch

from mmfakd.ops.filter_storage import (
    count_copies,
    draw_filter,
    filter_scale,
    fit_filter,
    pack_filter,
    unpack_filter,
)
from mmfakd.ops.half_spectrum import HalfSpectrum

SIZES = [(1, 1), (7, 8), (8, 7), (28, 30)]


@pytest.mark.parametrize('size', SIZES)
def test_a_packed_filter_is_the_hermitian_part(size):
    """Unmasked, the coefficients are (W(k) + conj W(-k)) / 2 of the half spectrum."""
    weight = draw_filter(2, 4, size, groups=1).to(torch.complex128)
    packed = pack_filter(weight, high_pass=0)
    half = unpack_filter(packed, count_copies(size, 0), size)
    full = weight.permute(2, 3, 0, 1)
    mirrored = full.flip(0, 1).roll((1, 1), (0, 1)).conj()
    expected = ((full + mirrored) / 2)[:, : size[1] // 2 + 1]
    assert torch.allclose(half[:, :, 0], expected, atol=1e-12)


def test_copies_count_what_the_published_mask_leaves():
    """At 28 pixels only DC goes, and three neighbours lose one of two copies."""
    size = (28, 28)
    grid, copies = HalfSpectrum.whole(*size), count_copies(size, 0.1)
    half = grid.expand(
        torch.complex(copies.double(), torch.zeros(len(copies)).double())
    )
    assert half[0, 0] == 0
    assert half[1, 0] == half[0, 1] == half[1, 1] == 1
    assert half[2, 2] == 2 and half[14, 0] == half[0, 14] == half[14, 14] == 4
    scale = filter_scale(copies, torch.float64)
    # MKL's square root of 2 is off by the last place on some processors.
    found, last_place = sorted(set(scale.tolist())), 2**-52
    assert found == pytest.approx([0, 0.5, 0.5**0.5, 1], rel=last_place, abs=0)


@pytest.mark.parametrize('size', SIZES)
def test_each_frequency_counts_once(size):
    grid = HalfSpectrum.whole(*size)
    multiplicity = grid.multiplicity(count_copies(size, 0))
    assert multiplicity.sum() == size[0] * size[1]


def test_fits_inputs_of_all_sizes():
    """The filter's own size needs nothing but factors; others get what they share."""
    size = (6, 8)
    filter_ = pack_filter(draw_filter(2, 2, size, groups=2), groups=2)
    copies = count_copies(size, 0.1)
    fitted, scale, grid = fit_filter(filter_, copies, size, size)
    assert fitted is filter_ and len(scale) == len(copies)
    assert grid == HalfSpectrum.whole(*size)
    _, scale, grid = fit_filter(filter_, copies, size, (4, 5))
    assert scale is None and grid == HalfSpectrum.whole(4, 5)
    fitted, scale, grid = fit_filter(filter_, copies, size, (20, 30))
    # Row 3, the Nyquist row of six, stands for +3 and -3 of a taller input.
    assert scale is None and grid == HalfSpectrum(7, 5, 30)
    assert fitted.shape[1:] == filter_.shape[1:]
