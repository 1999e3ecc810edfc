# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the parts of a layer that nothing can do without take on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from mmfakd.models.layers import FrequencyAttention

from .measure import Case, Options, Side, training_pass
from .suites import Size, layer_cases, layer_sides

# Pixels whose exponentials are taken at a time, so that they stay in a cache.
_IN_CACHE = 2**15


def limit_cases(options: Options, batch_size: int | None = None) -> list[Case]:
    """Each layer against what its parts take alone, as plain operations of torch.

    Those are a lower limit for any implementation out of these operations: they leave
    out everything in between, transpositions and masks, scores and sums.

    Args:
        options (Options): Device and precision; the parts are measured in float32.
        batch_size (int, optional): Batch size in place of each case's own.

    Returns:
        list[Case]: One for each layer and size, with the layer, its naive version,
        all parts one after another, and each part.
    """
    return layer_cases(options, batch_size, _sides)


def _sides(kind: Callable[..., nn.Module], size: Size, options: Options) -> list[Side]:
    parts_of = _filter_parts if kind is FrequencyAttention else _window_parts
    parts = parts_of(size, options)

    def run_all() -> None:
        for part in parts:
            part.run()

    return [*layer_sides(kind, size, options), Side('parts alone', run_all, 0), *parts]


def _filter_parts(size: Size, options: Options) -> list[Side]:
    """Fourier transforms, products of spectra and memory of FrequencyAttention.

    The 1x1 convolution may join the coefficients, and is left out.
    """
    (batch, channels, pixels), device = size, options.device
    layer = FrequencyAttention(channels, channels, size=pixels)
    count = layer.filter.shape[0]
    feature = torch.randn(size.shape, device=device)
    spectrum = torch.randn(count, batch, channels, dtype=torch.cfloat, device=device)
    weight = torch.randn(count, channels, channels, dtype=torch.cfloat, device=device)

    def transforms() -> None:
        for _ in range(2):
            half = torch.fft.rfft2(feature, norm='ortho')
            torch.fft.irfft2(half, s=feature.shape[-2:], norm='ortho')

    def products() -> None:
        torch.bmm(spectrum, weight)
        torch.bmm(spectrum, weight.transpose(1, 2))
        torch.bmm(spectrum.transpose(1, 2), spectrum)

    # Forward: x, filter, output. Backward: gradient, x, filter, and their gradients.
    numbers = 5 * feature.numel() + 3 * layer.filter.numel()
    return [
        Side('Fourier transforms', transforms, 0),
        Side('products of spectra', products, 0),
        _copies(numbers, device),
    ]


def _window_parts(size: Size, options: Options) -> list[Side]:
    """Projections, exponentials and memory of LocalCrossAttention."""
    feature = torch.randn(size.shape)
    # Queries of one feature, keys and values of the other: so many products.
    convolution = nn.Conv2d(size.channels, 3 * size.channels, 1, bias=False)
    projections = training_pass('projections', convolution, [feature], options)
    scores = torch.randn(_IN_CACHE, device=options.device)
    out = torch.empty_like(scores)
    # Nine positions, forward and again backward.
    calls = -(-2 * 9 * feature.numel() // _IN_CACHE)

    def exponentials() -> None:
        for _ in range(calls):
            torch.exp2(scores, out=out)

    # Forward: two features, output. Backward: both, gradient, and their gradients.
    return [
        projections,
        Side('exponentials', exponentials, 0),
        _copies(8 * feature.numel(), options.device),
    ]


def _copies(numbers: int, device: str) -> Side:
    """Copy so much that as many numbers are read or written."""
    source = torch.randn(-(-numbers // 2), device=device)
    target = torch.empty_like(source)
    return Side('memory', partial(target.copy_, source), 0)
