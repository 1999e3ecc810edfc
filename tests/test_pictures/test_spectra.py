# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Spectra against sums over every frequency."""

import cmath
import math

import pytest
import torch

from mmfakd.models.layers import FrequencyAttention
from mmfakd.pictures.spectra import (
    BANDS,
    band_amplitudes,
    band_gaps,
    band_magnitudes,
    filter_magnitude,
    radial_filter,
    radial_spectrum,
)


def coefficients(feature):
    """Cycles per image (rows, columns) -> mean power, by the definition."""
    height, width = feature.shape[-2:]
    found = {}
    for v in range(-(height // 2), (height + 1) // 2):
        for u in range(-(width // 2), (width + 1) // 2):
            wave = torch.tensor(
                [
                    [
                        cmath.exp(-2j * math.pi * (v * y / height + u * x / width))
                        for x in range(width)
                    ]
                    for y in range(height)
                ]
            )
            value = (feature * wave).sum((-2, -1)) / math.sqrt(height * width)
            found[v, u] = float(value.abs().square().mean())
    return found


def rms(values):
    return math.sqrt(sum(values) / len(values))


def test_amplitudes_by_radius_and_band():
    feature = torch.rand(2, 3, 6, 5)
    power = coefficients(feature)
    by_radius, by_band = {}, {}
    for (v, u), value in power.items():
        by_radius.setdefault(round(math.hypot(v, u)), []).append(value)
        frequency = math.hypot(v / 6, u / 5)
        name = 'low' if frequency < 0.166 else 'middle' if frequency < 0.333 else 'high'
        by_band.setdefault(name, []).append(value)
    expected = [rms(by_radius[r]) for r in sorted(by_radius)]
    assert radial_spectrum(feature).tolist() == pytest.approx(expected, rel=1e-4)
    amplitudes = band_amplitudes(feature)
    # Frequencies of exactly a sixth and a third are those of the band above.
    assert amplitudes == pytest.approx(
        {name: rms(values) for name, values in by_band.items()}, rel=1e-4
    )
    assert list(amplitudes) == list(BANDS)


@pytest.mark.parametrize('parts', [3, 6])
def test_edges_of_bands_whatever_their_rounding(parts):
    above = {3: 'high', 6: 'middle'}[parts]
    for length in range(parts, 250, parts):
        phase = 2 * math.pi * torch.arange(length) / parts
        for wave in (phase.cos()[None], phase.cos()[:, None]):
            amplitudes = band_amplitudes(wave[None, None])
            found = [name for name in amplitudes if amplitudes[name] > 0.01]
            assert found == [above], length


@pytest.mark.parametrize('rows, columns, third', [(15, 20, 25), (9, 40, 41)])
def test_slanting_frequencies_on_an_edge(rows, columns, third):
    size = 3 * third
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')
    wave = (2 * math.pi * (rows * y + columns * x) / size).cos()
    amplitudes = band_amplitudes(wave[None, None])
    assert [name for name in amplitudes if amplitudes[name] > 0.01] == ['high']


def test_bands_that_a_small_map_lacks_are_left_out():
    assert list(band_amplitudes(torch.rand(1, 2, 1, 1))) == ['low']
    assert list(band_amplitudes(torch.rand(1, 2, 2, 2))) == ['low', 'high']


def test_gaps():
    teacher, noise = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    nothing = torch.zeros_like(teacher)
    assert band_gaps(teacher, teacher) == dict.fromkeys(BANDS, 0)
    assert band_gaps(nothing, teacher) == pytest.approx(dict.fromkeys(BANDS, 1))
    prediction = teacher + noise
    gaps = band_gaps(prediction, teacher)
    apart, whole = coefficients(noise), coefficients(teacher)
    for name, (low, high) in BANDS.items():
        inside = [k for k in whole if low <= math.hypot(*k) / 8 < high]
        expected = math.sqrt(sum(apart[k] for k in inside))
        expected /= math.sqrt(sum(whole[k] for k in inside))
        assert gaps[name] == pytest.approx(expected, rel=1e-4)
    # A teacher without anything there has no gap.
    flat = torch.ones(1, 1, 8, 8)
    assert list(band_gaps(flat, flat)) == ['low']


@pytest.mark.parametrize('size', [(6, 8), (5, 7)])
def test_filters_are_whole_spectra(size):
    """What a filter does to one wave says its magnitude there."""
    layer = FrequencyAttention(1, 1, size=size, high_pass=0, with_local=False)
    magnitude = filter_magnitude(layer)
    assert magnitude.shape == size
    height, width = size
    ys = torch.arange(height)[:, None] / height
    xs = torch.arange(width) / width
    for v, u in ((0, 0), (1, 0), (0, 2), (1, 2), (2, -1)):
        with torch.no_grad():
            parts = [
                layer(f(2 * math.pi * (v * ys + u * xs))[None, None].float())
                for f in (torch.cos, torch.sin)
            ]
        # A shift of the wave's phase: both parts together have the filter's magnitude.
        power = sum(part.square().sum() for part in parts) / (height * width)
        gate = float(layer.gate_global)
        there = float(magnitude[v + height // 2, u + width // 2])
        assert math.sqrt(power) / gate == pytest.approx(there, rel=1e-4)


def acting_parameters(layer, size):
    """Which frequencies get a gradient from maps of a size."""
    layer.zero_grad()
    layer(torch.randn(4, 1, *size)).square().sum().backward()
    return (layer.filter.grad != 0).flatten(1).any(1)


def acting(layer, size):
    """Where on the grid these are."""
    used = acting_parameters(layer, size)
    with torch.no_grad():
        layer.filter.zero_()
        layer.filter[used] = 1
    return filter_magnitude(layer) > 0


@pytest.mark.parametrize('size', [(4, 5), (5, 4), (7, 7), (8, 8), (2, 12), (14, 18)])
@pytest.mark.parametrize('modes', [12, 7])
def test_frequencies_that_a_map_lacks_are_none(size, modes):
    layer = FrequencyAttention(1, 1, modes=modes, high_pass=0, with_local=False)
    magnitude = filter_magnitude(layer, size)
    before = radial_filter(layer, size), band_magnitudes(layer, size)
    there = ~magnitude.isnan()
    assert torch.equal(magnitude[there], filter_magnitude(layer)[there])
    # Whatever they hold makes no difference.
    lacking = ~acting_parameters(layer, size)
    with torch.no_grad():
        layer.filter[lacking] *= 100
    radial = radial_filter(layer, size)
    assert torch.equal(radial.nan_to_num(-1), before[0].nan_to_num(-1))
    assert band_magnitudes(layer, size) == before[1]
    assert torch.equal(there, acting(layer, size))
    reach = math.hypot(min(size[0], modes) // 2, min(size[1], modes) // 2)
    assert radial[: round(reach) + 1].isfinite().all()
    assert radial[round(reach) + 1 :].isnan().all()


def test_filters_by_radius_and_band():
    layer = FrequencyAttention(2, 3, modes=4, high_pass=0)
    radial = radial_filter(layer)
    with torch.no_grad():
        mean = layer.spectrum().abs().mean((0, 1))
    assert radial[0] == pytest.approx(float(mean[0, 0]))
    # On a map of 12 pixels four modes are the low frequencies; on one of 4, all.
    assert list(band_magnitudes(layer, (12, 12))) == ['low', 'middle']
    assert list(band_magnitudes(layer, (4, 4))) == ['low', 'middle', 'high']
    assert list(band_magnitudes(layer, (48, 48))) == ['low']


def test_what_device_is_the_default_does_not_matter():
    feature, layer = torch.rand(1, 2, 6, 5), FrequencyAttention(2, 2, modes=7)

    def measure():
        filters = radial_filter(layer, (4, 9)).nan_to_num()
        return radial_spectrum(feature), band_amplitudes(feature), filters

    expected = measure()
    with torch.device('meta'):
        found = measure()
    assert torch.equal(found[0], expected[0]) and found[1] == expected[1]
    assert torch.equal(found[2], expected[2])
