# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The computation behind FrequencyAttention in as few operations as can be."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .filter_tables import FilterTables
from .no_autocast import no_autocast
from .spectral_transform import from_half_spectrum, to_half_spectrum

# No bias, stride, padding, dilation, no transposition, padding of the output, groups;
# which gradients are wanted.
_CONV = None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]


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

        Returns:
            Tensor: Feature (N, Co, H, W) of the dtype of ``x``.
        """
        ctx.options, ctx.dtype = (tables, merge, way), x.dtype
        real, grid = x.to(filter_.dtype), tables.grid
        groups, size = filter_.shape[1], x.shape[-2:]
        coefficients = filter_.index_select(0, tables.places)
        coefficients.mul_(tables.factors * gate)
        if merge:
            assert weight is not None and gate_local is not None
            # They take the factor of the transforms.
            joined = coefficients[:, 0, ..., 0]
            norm = 1 / (size[0] * size[1])
            joined.addcmul_(weight.flatten(1).t(), gate_local, value=norm)
        coefficients = torch.view_as_complex(coefficients)
        spectrum = to_half_spectrum(real, grid, groups, way)
        product = _multiply(spectrum, coefficients)
        y = from_half_spectrum(product, size, grid, way)
        if weight is not None:
            assert bias is not None and gate_local is not None
            if not merge:
                y += F.conv2d(real, weight * gate_local)
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
        tables, merge, way = ctx.options
        spectrum, coefficients, filter_, gate, *local = ctx.saved_tensors
        with no_autocast(grad):
            real, size = grad.to(filter_.dtype), grad.shape[-2:]
            grads = to_half_spectrum(real, tables.grid, filter_.shape[1], way)
            back = _multiply(grads, coefficients.mH)
            grad_x = from_half_spectrum(back, size, tables.grid, way)
            products = torch.view_as_real(_multiply(spectrum.mH, grads))
            grad_filter = products.index_select(0, tables.uses)
            grad_filter = grad_filter.unflatten(0, tables.weights.shape[:2])
            grad_filter.mul_(tables.weights)
            grad_filter = (
                grad_filter[0] if len(grad_filter) == 1 else grad_filter.sum(0)
            )
            grad_gate = torch.dot(grad_filter.flatten(), filter_.flatten())[None]
            grad_filter.mul_(gate)
            grads_local: tuple[Tensor | None, ...] = None, None, None
            x, weight, bias, gate_local = local
            if weight is not None:
                if merge:
                    sums = (tables.counts @ products.flatten(1)).view(
                        products.shape[2:]
                    )
                    grad_weight = sums[..., 0].t()
                else:
                    grad_local, grad_weight, _ = torch.ops.aten.convolution_backward(
                        real, x.to(filter_.dtype), weight * gate_local, *_CONV
                    )
                    grad_x += grad_local
                # Of a transform without factor the mean is the sum.
                grads_local = local_gradients(
                    grad_weight, grads[0].real.transpose(0, 1), weight, bias, gate_local
                )
        grad_x = grad_x.to(ctx.dtype)
        return grad_x, grad_filter, grad_gate, *grads_local, None, None, None


def local_gradients(
    grad_weight: Tensor, grads: Tensor, weight: Tensor, bias: Tensor, gate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a convolution's weight and bias, and of the gate that scales both.

    Args:
        grad_weight (Tensor): Gradient of the scaled weight, (Co, Ci) or with two
            axes more.
        grads (Tensor): Gradients of the output, added up over pixels, (N, ...) with
            Co numbers each.
        weight (Tensor): The weight, (Co, Ci, 1, 1).
        bias (Tensor): The bias, (Co,).
        gate (Tensor): The gate, (1,).

    Returns:
        tuple[Tensor, Tensor, Tensor]: Of weight, bias and gate.
    """
    count = weight.numel()
    both = bias.new_empty(count + len(bias))
    both[:count].view(weight.shape[:2]).copy_(grad_weight.view(weight.shape[:2]))
    torch.sum(grads, 0, out=both[count:].view(grads.shape[1:]))
    grad_gate = torch.dot(both, torch.cat([weight.flatten(), bias]))[None]
    both.mul_(gate)
    return both[:count].view_as(weight), both[count:], grad_gate


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Products of the matrices (..., I, J) and (..., J, K) of all places and groups."""
    product = torch.bmm(left.flatten(0, 1), right.flatten(0, 1))
    return product.unflatten(0, left.shape[:2])
