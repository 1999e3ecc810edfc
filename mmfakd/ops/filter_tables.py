# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which stored coefficient stands at which frequency of an input, with which factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .compiling import kept, to_device
from .filter_storage import count_copies, filter_scale, shared_frequencies
from .half_spectrum import HalfSpectrum


@dataclass(frozen=True)
class FilterTables:
    """The way from the parameter to the half spectrum of an input, and back.

    The coefficient at place k of the half spectrum is, part by part,
    ``factors[k] * filter[places[k]]``: with the constants of the storage, the sign of
    an imaginary part where it is the conjugate that is stored, 0 where the coefficient
    is real, and the factor of both Fourier transforms, which are taken without any.

    Attributes:
        grid (HalfSpectrum): The frequencies of the input that the filter has.
        places (Tensor): Integers (K,), for its K rows times columns.
        factors (Tensor): Shape (K, 1, 1, 1, 2).
        uses (Tensor): Integers (U * F,): places of the half spectrum where each of
            the F stored coefficients stands, U for each of them.
        weights (Tensor): Shape (U, F, 1, 1, 1, 2): the factors there, times the
            number of frequencies of the full spectrum that the place stands for; 0
            where a coefficient stands nowhere, or less often.
        counts (Tensor): Shape (1, K): how often a place stands for itself or its mirror
            image where that is no place, times the factor of the transforms.
        use_counts (Tensor): Shape (U, F): the same of the places in ``uses``, with
            their mirror images.
    """

    grid: HalfSpectrum
    places: Tensor
    factors: Tensor
    uses: Tensor
    weights: Tensor
    counts: Tensor
    use_counts: Tensor


@lru_cache(maxsize=256)
def filter_tables(
    size: tuple[int, int],
    high_pass: float,
    input_size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> FilterTables:
    """Make the tables of a filter and an input; what is made is kept.

    Args:
        size (tuple[int, int]): Height and width of the filter.
        high_pass (float): Its cut-off as a fraction of the Nyquist frequency.
        input_size (tuple[int, int]): Height and width of the input.
        dtype (torch.dtype): Dtype to compute in.
        device (torch.device): Where the tables shall lie.

    Returns:
        FilterTables: The tables.
    """
    # Whatever the default device is, and whoever asks first.
    with torch.inference_mode(False), torch.device('cpu'):
        scale = filter_scale(count_copies(size, high_pass), torch.float64)
        count = len(scale)
        # Real and imaginary part name the coefficient; the latter tells its sign.
        names = torch.arange(1, count + 1, dtype=torch.float64)
        half = HalfSpectrum.whole(*size).expand(torch.complex(names, names))
        half, grid = shared_frequencies(half, size, input_size)
        listed = grid.compact(half)
        half = grid.expand(listed).flatten()
        places = half.real.long() - 1
        signs = torch.stack([torch.ones_like(half.real), half.imag.sign()], -1)
        norm = 1 / (input_size[0] * input_size[1])
        factors = scale[places, None] * signs * norm
        columns = torch.full((grid.rows, grid.columns), 2.0, dtype=torch.float64)
        columns[:, list(grid.own_columns)] = 1
        uses, weights, times = _uses(listed, grid, scale)
        tables = (
            places,
            factors[:, None, None, None].to(dtype),
            uses.flatten(),
            (weights * norm)[:, :, None, None, None].to(dtype),
            (columns.flatten() * norm)[None].to(dtype),
            (times * norm).to(dtype),
        )
        return FilterTables(grid, *(to_device(z.contiguous(), device) for z in tables))


def _uses(
    listed: Tensor, grid: HalfSpectrum, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where each coefficient stands in a half spectrum, with which weight, how often.

    Of two places that are mirror images one is listed, which stands for both.
    """
    where = torch.arange(grid.rows * grid.columns).view(grid.rows, grid.columns)
    where = grid.compact(where)
    copies = grid.multiplicity(where)
    own = set(grid.own_mirror_images)
    numbers = zip(where.tolist(), copies.tolist(), listed.tolist())
    found: list[list[tuple[float, ...]]] = [[] for _ in scale]
    for i, (place, times, name) in enumerate(numbers):
        j = int(name.real) - 1
        weight = times * float(scale[j])
        sign = 0.0 if i in own else math.copysign(bool(name.imag), name.imag)
        found[j].append((place, weight, sign * weight, times))
    most = max(map(len, found))
    found = [places + [(0.0,) * 4] * (most - len(places)) for places in found]
    table = torch.tensor(found, dtype=torch.float64).transpose(0, 1)
    return table[..., 0].long(), table[..., 1:3], table[..., 3]


def input_tables(
    size: Sequence[int], high_pass: float, x: Tensor, dtype: torch.dtype
) -> FilterTables:
    """Find the tables of a filter for an input.

    Args:
        size (Sequence[int]): Height and width of the filter.
        high_pass (float): Its cut-off.
        x (Tensor): The input (N, C, H, W).
        dtype (torch.dtype): Dtype to compute in.

    Returns:
        FilterTables: The tables, on its device.
    """
    height, width = x.shape[-2:]
    return kept(filter_tables, x)(
        (size[0], size[1]), high_pass, (height, width), dtype, x.device
    )
