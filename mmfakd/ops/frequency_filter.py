# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The function of FrequencyAttention, computed as suits device and compiler."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .compiling import is_compiling, is_foreign
from .filter_storage import fit_filter
from .filter_tables import input_tables
from .half_spectrum import HalfSpectrum
from .pixel_filter import PixelFilter
from .spectral_filter import merge_pays, spectral_filter
from .spectral_filter_at_once import SpectralFilterAtOnce
from .spectral_transform import are_few


@dataclass(frozen=True)
class FilterParameters:
    """What FrequencyAttention learns, in the dtype to compute in.

    Attributes:
        filter (Tensor): Shape (F, G, Ci / G, Co / G, 2).
        copies (Tensor): Integers (F,), from :func:`~.filter_storage.count_copies`.
        size (tuple[int, int]): Height and width of the filter.
        high_pass (float): Its cut-off.
        gate (Tensor): Factor of the filtered feature, (1,).
        weight (Tensor, optional): Weight of the 1x1 convolution, (Co, Ci, 1, 1).
        bias (Tensor, optional): Its bias, (Co,).
        gate_local (Tensor, optional): Factor of the convolution, (1,).
    """

    filter: Tensor
    copies: Tensor
    size: tuple[int, int]
    high_pass: float
    gate: Tensor
    weight: Tensor | None
    bias: Tensor | None
    gate_local: Tensor | None


def frequency_filter(x: Tensor, parameters: FilterParameters) -> Tensor:
    """Filter in the Fourier domain and add a 1x1 convolution.

    On CPUs block by block, so that what is worked on stays in a cache; on GPUs in few
    operations; under a compiler, and on devices other than these, in plain ones.

    Args:
        x (Tensor): Feature (N, Ci, H, W).
        parameters (FilterParameters): What the layer learns.

    Returns:
        Tensor: Feature (N, Co, H, W) of the dtype of ``x``.
    """
    if x.device.type == 'cpu' or is_compiling() or is_foreign(x):
        return _by_blocks(x, parameters)
    return _at_once(x, parameters)


def _by_blocks(x: Tensor, p: FilterParameters) -> Tensor:
    weight, bias = p.weight, p.bias
    if weight is not None:
        # The gates scale the small tensors of weights, not the large ones of
        # features; the function and its gradients are the same.
        assert bias is not None and p.gate_local is not None
        weight, bias = weight * p.gate_local, bias * p.gate_local
    filter_, scale, grid = fit_filter(p.filter, p.copies, p.size, x.shape[-2:])
    return spectral_filter(x, filter_, scale, p.gate, weight, bias, grid)


def _at_once(x: Tensor, p: FilterParameters) -> Tensor:
    local = p.weight, p.bias, p.gate_local
    merges = p.weight is not None and p.filter.shape[1] == 1
    if merges and tuple(x.shape[-2:]) == p.size == (1, 1):
        return PixelFilter.apply(x, p.filter, p.gate, *local)
    tables = input_tables(p.size, p.high_pass, x, p.filter.dtype)
    whole = tables.grid == HalfSpectrum.whole(*x.shape[-2:])
    merge = merges and whole and merge_pays(p.filter, x)
    way = 'axes' if are_few(tables.grid) else 'fft'
    return SpectralFilterAtOnce.apply(x, p.filter, p.gate, *local, tables, merge, way)
