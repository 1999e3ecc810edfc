# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is compared of the implementations of filters in the Fourier domain."""

import torch
from torch import Tensor

from mmfakd.models.layers import FrequencyAttention
from mmfakd.ops.block_plan import BlockPlan
from mmfakd.ops.filter_storage import fit_filter
from mmfakd.ops.spectral_filter import SpectralFilter


def make_filter(pixels: tuple, dtype=torch.double, **kwargs) -> tuple:
    """A layer with random weights, its parameters, an input and a gradient."""
    layer = FrequencyAttention(4, 6, **kwargs).to(dtype)
    for p in layer.parameters():
        p.data.normal_()
    local = [None] * 3
    if layer.with_local:
        local = [layer.local.weight, layer.local.bias, layer.gate_local]
    x = torch.randn(3, 4, *pixels, dtype=dtype, requires_grad=True)
    params = [layer.filter, layer.gate_global, *local]
    return layer, params, x, torch.randn(3, 6, *pixels, dtype=dtype)


def gradients(y: Tensor, params: list, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Output, and gradients of the input and all parameters that there are."""
    learned = [x, *(p for p in params if p is not None)]
    return [y.detach(), *torch.autograd.grad(y, learned, grad)]


def by_blocks(layer: FrequencyAttention, params: list, x: Tensor) -> Tensor:
    """The reference, without the layer's choice between ways."""
    filter_, gate, weight, bias, gate_local = params
    filter_, scale, grid = fit_filter(filter_, layer.copies, layer.grid, x.shape[-2:])
    if weight is not None:
        weight, bias = weight * gate_local, bias * gate_local
    local = weight, bias
    return SpectralFilter.apply(x, filter_, scale, gate, *local, grid, BlockPlan())
