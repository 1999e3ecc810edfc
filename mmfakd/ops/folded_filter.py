# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A filter brought to a half spectrum, and its gradients, in operations of torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .filter_tables import FilterTables


def fold_filter(
    filter_: Tensor,
    gate: Tensor,
    weight: Tensor | None,
    gate_local: Tensor | None,
    tables: FilterTables,
    norm: float,
) -> Tensor:
    """Compute the coefficients of a half spectrum.

    Args:
        filter_ (Tensor): The parameter (F, G, Ci / G, Co / G, 2).
        gate (Tensor): Its factor, (1,).
        weight (Tensor, optional): Weight (Co, Ci, 1, 1) of a convolution that joins it.
            To the Fourier domain it is the same at all frequencies.
        gate_local (Tensor, optional): Factor of that, (1,).
        tables (FilterTables): The way from the parameter to the spectrum.
        norm (float): Another factor of the weight, that of the transforms.

    Returns:
        Tensor: Coefficients (K, G, Ci / G, Co / G, 2).
    """
    coefficients = filter_.index_select(0, tables.places)
    coefficients.mul_(tables.factors * gate)
    if weight is not None:
        assert gate_local is not None
        joined = coefficients[:, 0, ..., 0]
        joined.addcmul_(weight.flatten(1).t(), gate_local, value=norm)
    return coefficients


def unfold_gradients(
    products: Tensor,
    filter_: Tensor,
    gate: Tensor,
    local: tuple[Tensor, Tensor, Tensor] | None,
    grads: Tensor,
    tables: FilterTables,
) -> tuple[Tensor, ...]:
    """Compute the gradients of the parameters, given that of the coefficients.

    Args:
        products (Tensor): Gradient of the coefficients (K, G, Ci / G, Co / G, 2).
        filter_ (Tensor): The parameter (F, G, Ci / G, Co / G, 2).
        gate (Tensor): Its factor, (1,).
        local (tuple, optional): Weight, bias and factor of a convolution that has
            joined it.
        grads (Tensor): Gradient of the output as a half spectrum (K, G, N, Co / G),
            complex.
        tables (FilterTables): The way from the parameter to the spectrum.

    Returns:
        tuple[Tensor, ...]: Gradients of filter and gate, and with ``local`` of weight,
        bias and gate.
    """
    used = products.index_select(0, tables.uses)
    used = used.unflatten(0, tables.weights.shape[:2])
    used.mul_(tables.weights)
    grad_filter = used[0] if len(used) == 1 else used.sum(0)
    grad_gate = torch.dot(grad_filter.flatten(), filter_.flatten())[None]
    grad_filter.mul_(gate)
    if local is None:
        return grad_filter, grad_gate
    sums = (tables.counts @ products.flatten(1)).view(products.shape[2:])
    grads_local = local_gradients(sums[..., 0].t(), sum_of_maps(grads), *local)
    return grad_filter, grad_gate, *grads_local


def sum_of_maps(half_spectrum: Tensor) -> Tensor:
    """Read the sums of maps off their spectra, which have no factor.

    Args:
        half_spectrum (Tensor): Complex, (K, G, N, C / G).

    Returns:
        Tensor: Shape (N, G, C / G).
    """
    return half_spectrum[0].real.transpose(0, 1)


def local_gradients(
    grad_weight: Tensor, grads: Tensor, weight: Tensor, bias: Tensor, gate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute gradients of a convolution, and of the gate that scales all of it.

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
