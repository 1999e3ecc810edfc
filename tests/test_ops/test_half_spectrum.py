# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfakd.ops.half_spectrum import HalfSpectrum

SIZES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 2),
    (1, 7),
    (7, 1),
    (8, 8),
    (7, 8),
    (8, 7),
    (9, 13),
]


@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_frequencies_of_a_real_feature(height, width):
    x = torch.randn(3, height, width, dtype=torch.float64)
    half = torch.fft.rfft2(x).movedim(0, -1)
    grid = HalfSpectrum(height, width // 2 + 1, width)
    compact = grid.compact(half)
    assert torch.allclose(grid.expand(compact), half, atol=1e-12)
    # Every independent number once: complex, but real where k is its own mirror image.
    own = grid.own_mirror_images
    assert 2 * len(compact) - len(own) == height * width
    assert compact[own].imag.abs().max() < 1e-12


@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_parts_are_views_in_order(height, width):
    grid = HalfSpectrum(height, width // 2 + 1, width)
    half = torch.arange(height * (width // 2 + 1)).view(height, -1)
    compact = grid.compact(half)
    bulk, halves = grid.parts(compact)
    assert torch.equal(bulk, half[:, grid.bulk_columns])
    assert len(halves) == len(grid.own_columns)
    for column, rows in zip(grid.own_columns, halves):
        assert torch.equal(rows, half[: height // 2 + 1, column])
        rows.zero_()
    assert (compact == 0).sum() >= halves.numel()


def test_columns_of_wider_features_have_their_mirror_image_elsewhere():
    # Eight modes in a feature of 12 pixels: column 4 is no Nyquist column there.
    grid = HalfSpectrum(9, 5, 12)
    assert grid.own_columns == (0,)
    assert grid.own_mirror_images == [9 * 4]


def test_expanded_columns_are_hermitian():
    grid = HalfSpectrum(8, 5, 8)
    half = grid.expand(torch.randn(8 * 3 + 2 * 5, 2, dtype=torch.complex64))
    for column in (0, 4):
        values = half[:, column]
        assert torch.equal(values, values.flip(0).roll(1, 0).conj())
