# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The computation behind FrequencyAttention in as few operations as can be."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import folded_filter, triton_filter
from .compiling import kept, to_device
from .filter_tables import FilterTables
from .no_autocast import no_autocast
from .spectral_filter import CONV_1X1
from .spectral_transform import from_half_spectrum, to_half_spectrum


class SpectralFilterAtOnce(torch.autograd.Function):
    """A filter in the Fourier domain and a 1x1 convolution, all samples at once.

    Devices that wait for launches are handed few operations, each on all that there
    is. The parameter is brought to the half spectrum of the input by a choice and a
    product; there the convolution joins it, where that is wanted, since to the
    Fourier domain it is the same at all frequencies. Coefficients whose mirror image
    is in the half spectrum, too, stand there twice: so products are Hermitian, and
    the transform back needs no completion. Transforms have no factors, the
    coefficients take them. The gradient of the bias is the mean's.

    All parameters and gates come as they are stored, so that their gradients take
    few operations, too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        filter_: Tensor,
        gate: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        gate_local: Tensor | None,
        tables: FilterTables,
        merge: bool,
        way: str,
        real: bool = False,
        kernels: bool = False,
    ) -> Tensor:
        """Filter ``x``.

        Args:
            ctx (Any): Context of autograd.
            x (Tensor): Feature (N, Ci, H, W).
            filter_ (Tensor): The parameter (F, G, Ci / G, Co / G, 2).
            gate (Tensor): Factor of the filtered feature, (1,).
            weight (Tensor, optional): Weight of the convolution, (Co, Ci, 1, 1).
            bias (Tensor, optional): Its bias, (Co,).
            gate_local (Tensor, optional): Factor of the convolution, (1,).
            tables (FilterTables): The way from the parameter to the input's spectrum.
            merge (bool): Whether the convolution joins the filter. This takes one
                group and all frequencies of the input.
            way (str): How transforms are computed, one of ``spectral_transform.WAYS``.
            real (bool): Whether products of complex matrices are computed as those of
                real ones twice as large, which TensorFloat-32 makes faster. Defaults
                to False.
            kernels (bool): Whether the parameters are brought to the spectrum, and
                their gradients back, by kernels of Triton. Defaults to False.

        Returns:
            Tensor: Feature (N, Co, H, W) of the dtype of ``x``.
        """
        ctx.options, ctx.dtype = (tables, merge, way, real, kernels), x.dtype
        wide, grid = x.to(filter_.dtype), tables.grid
        groups, size = filter_.shape[1], x.shape[-2:]
        fold = triton_filter.fold_filter if kernels else folded_filter.fold_filter
        joins = (weight, gate_local) if merge else (None, None)
        # The coefficients take the factor of the transforms.
        norm = 1 / (size[0] * size[1])
        coefficients = fold(filter_, gate, *joins, tables, norm)
        coefficients = torch.view_as_complex(coefficients)
        spectrum = to_half_spectrum(wide, grid, groups, way)
        product = _multiply(spectrum, coefficients, real)
        y = from_half_spectrum(product, size, grid, way)
        if weight is not None:
            assert bias is not None and gate_local is not None
            if not merge:
                y += F.conv2d(wide, weight * gate_local)
            # Last, because it can be much larger than what the norm behind this
            # layer leaves: so only one rounding error is of its size.
            y.addcmul_(bias[:, None, None], gate_local)
        kept = None if weight is None or merge else x
        local = kept, weight, bias, gate_local
        ctx.save_for_backward(spectrum, coefficients, filter_, gate, *local)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors of ``forward``."""
        tables, merge, way, real, kernels = ctx.options
        spectrum, coefficients, filter_, gate, *local = ctx.saved_tensors
        with no_autocast(grad):
            wide, size = grad.to(filter_.dtype), grad.shape[-2:]
            grads = to_half_spectrum(wide, tables.grid, filter_.shape[1], way)
            back = _multiply(grads, coefficients.mH, real)
            grad_x = from_half_spectrum(back, size, tables.grid, way)
            products = torch.view_as_real(_multiply(spectrum.mH, grads, real))
            unfold = (triton_filter if kernels else folded_filter).unfold_gradients
            x, weight, bias, gate_local = local
            joined = (weight, bias, gate_local) if merge else None
            found = unfold(products, filter_, gate, joined, grads, tables)
            if weight is not None and not merge:
                grad_local, grad_weight, _ = torch.ops.aten.convolution_backward(
                    wide, x.to(filter_.dtype), weight * gate_local, *CONV_1X1
                )
                grad_x += grad_local
                sums = folded_filter.sum_of_maps(grads)
                found += folded_filter.local_gradients(
                    grad_weight, sums, weight, bias, gate_local
                )
        found += (None,) * (5 - len(found))
        return grad_x.to(ctx.dtype), *found, *[None] * 5


def _multiply(left: Tensor, right: Tensor, real: bool) -> Tensor:
    """Products of the matrices (..., I, J) and (..., J, K) of all places and groups."""
    first, second = left.flatten(0, 1), right.flatten(0, 1)
    if real:
        # Real and imaginary parts next to each other; i times a row stands below it.
        units = kept(_units, first)(first.dtype, first.device)
        second = torch.view_as_real(second[:, :, None] * units).flatten(3).flatten(1, 2)
        first = torch.view_as_real(first.resolve_conj().contiguous()).flatten(2)
    product = torch.bmm(first, second)
    if real:
        product = torch.view_as_complex(product.unflatten(2, (-1, 2)))
    return product.unflatten(0, left.shape[:2])


@lru_cache(maxsize=16)
def _units(dtype: torch.dtype, device: torch.device) -> Tensor:
    """One and i, one below the other."""
    with torch.inference_mode(False):
        return to_device(torch.tensor([[1], [1j]], dtype=dtype, device='cpu'), device)
