# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Features and filters by frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmfakd.models.layers import FrequencyAttention
from mmfakd.models.losses.fft_feature_loss import fft_feature_loss, within_band
from mmfakd.ops.filter_storage import shared_frequencies
from mmfakd.ops.half_spectrum import HalfSpectrum

# Cycles per pixel, from and below: thirds of the highest frequency along an axis.
BANDS = dict(low=(0.0, 1 / 6), middle=(1 / 6, 1 / 3), high=(1 / 3, 1.0))


def radial_spectrum(feature: Tensor) -> Tensor:
    """Root mean square amplitude over the radius of the frequency.

    Args:
        feature (Tensor): (N, C, H, W).

    Returns:
        Tensor: (R,), entry r for frequencies of r cycles per image, rounded.
    """
    power = torch.fft.fft2(feature.float(), norm='ortho').abs().square().mean((0, 1))
    return _by_radius(power).sqrt()


def filter_magnitude(
    layer: FrequencyAttention, size: Sequence[int] | None = None
) -> Tensor:
    """Mean magnitude of a filter on its full grid.

    Args:
        layer (FrequencyAttention): The layer, with a global branch.
        size (Sequence[int], optional): Height and width of the maps that it is used
            on. Defaults to None: all frequencies of the filter count.

    Returns:
        Tensor: (H, W), the mean (DC) in the middle; NaN at frequencies that maps of
        this size lack, where the filter has no effect.
    """
    with torch.no_grad():
        half = layer.spectrum().abs().mean((0, 1)).cpu()
    if size is not None and layer.size is None:
        half = half.where(_is_used(layer.grid, size), math.nan)
    width = layer.grid[1]
    columns = torch.arange(half.shape[1], width, device='cpu')
    mirrored = half.flip(0).roll(1, 0)[:, width - columns]
    return torch.fft.fftshift(torch.cat([half, mirrored], 1))


def radial_filter(
    layer: FrequencyAttention, size: Sequence[int] | None = None
) -> Tensor:
    """Root mean square magnitude of a filter over the radius of the frequency.

    Args:
        layer (FrequencyAttention): The layer, with a global branch.
        size (Sequence[int], optional): As of :func:`filter_magnitude`.

    Returns:
        Tensor: (R,), entry r for frequencies of r cycles per image, rounded; NaN where
        maps of this size have none.
    """
    magnitude = torch.fft.ifftshift(filter_magnitude(layer, size))
    return _by_radius(magnitude.square()).sqrt()


def band_amplitudes(feature: Tensor) -> dict[str, float]:
    """Root mean square amplitude in each band.

    Args:
        feature (Tensor): (N, C, H, W).

    Returns:
        dict[str, float]: Name of the band -> amplitude; bands that a map of this size
        has no frequency in are left out.
    """
    power = torch.fft.fft2(feature.float(), norm='ortho').abs().square().mean((0, 1))
    return _by_band(power, feature.shape[-2:])


def band_magnitudes(layer: FrequencyAttention, size: Sequence[int]) -> dict[str, float]:
    """Root mean square magnitude of a filter in each band.

    Args:
        layer (FrequencyAttention): The layer, with a global branch.
        size (Sequence[int]): Height and width of the maps that it is used on.

    Returns:
        dict[str, float]: Name of the band -> magnitude, of the bands in which filter
        and maps have a frequency.
    """
    magnitude = torch.fft.ifftshift(filter_magnitude(layer, size))
    return _by_band(magnitude.square(), size)


def band_gaps(prediction: Tensor, teacher: Tensor) -> dict[str, float]:
    r"""Distance of a prediction from the teacher's feature in each band.

    .. math::
        g_B = \sqrt{\frac{\sum_{k \in B} |\hat{P}(k) - \hat{T}(k)|^2}
                         {\sum_{k \in B} |\hat{T}(k)|^2}}

    0 is perfect; a prediction of nothing at all has 1.

    Args:
        prediction (Tensor): (N, C, H, W).
        teacher (Tensor): The same shape.

    Returns:
        dict[str, float]: Name of the band -> gap, of the bands in which the teacher
        has something.
    """
    found = {}
    prediction, teacher = prediction.float(), teacher.float()
    nothing = torch.zeros_like(teacher)
    for name, band in BANDS.items():
        apart = float(fft_feature_loss(prediction, teacher, band=band))
        whole = float(fft_feature_loss(nothing, teacher, band=band))
        if whole > 0:
            found[name] = math.sqrt(apart / whole)
    return found


def _is_used(grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Where a filter's half spectrum acts on maps of a size: booleans."""
    count = grid[0] * (grid[1] // 2 + 1)
    places = torch.arange(count, device='cpu').view(grid[0], -1)
    shared, frequencies = shared_frequencies(places, grid, size)
    used = torch.zeros_like(places, dtype=torch.bool)
    used.view(-1)[frequencies.compact(shared)] = True
    # Half of such a column says what the other one is.
    for column in HalfSpectrum.whole(*grid).own_columns:
        used[:, column] |= used[:, column].flip(0).roll(1, 0)
    return used


def _cycles(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Cycles per image of rows and columns of a full spectrum, as ``fft2`` has it."""
    rows, columns = (
        torch.fft.fftfreq(length, 1 / length, dtype=torch.float64, device='cpu')
        for length in (height, width)
    )
    return rows[:, None], columns


def _by_radius(power: Tensor) -> Tensor:
    """Mean over the frequencies of each radius, rounded to whole cycles per image.

    NaN is no frequency.
    """
    power = power.cpu()
    rows, columns = _cycles(*power.shape)
    radius = (rows.square() + columns.square()).sqrt().round().long().flatten()
    there = ~power.isnan().flatten()
    total = torch.zeros(int(radius.max()) + 1, device='cpu')
    total.index_add_(0, radius[there], power.flatten()[there])
    return total / radius[there].bincount(minlength=len(total))


def _by_band(power: Tensor, size: Sequence[int]) -> dict[str, float]:
    """Root of the mean over each band, of maps of a size. NaN is no frequency."""
    power = power.cpu()
    rows, columns = _cycles(*power.shape)
    frequency = torch.hypot(rows / size[0], columns / size[1])
    found = {}
    for name, band in BANDS.items():
        inside = power[within_band(frequency, band) & ~power.isnan()]
        if inside.numel():
            found[name] = float(inside.mean().sqrt())
    return found
