# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A filter brought to a half spectrum, and its gradients, in a few kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from .filter_tables import FilterTables
from .kernel_library import add_kernel, runs_kernels

# Numbers of a program, and frequencies that it goes through for the gradient.
_BLOCK, _ROWS = 1024, 16


def is_usable(filter_: Tensor) -> bool:
    """Tell whether the kernels are made for such a filter, and run where it lies.

    Args:
        filter_ (Tensor): The parameter.

    Returns:
        bool: Whether to try.
    """
    # Places in matrices are numbers of 32 bits.
    fits = filter_.dtype == torch.float32 and filter_[0].numel() < 2**31
    return fits and runs_kernels(filter_)


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
        gate_local (Tensor, optional): Factor of that, (1,).
        tables (FilterTables): The way from the parameter to the spectrum.
        norm (float): Another factor of the weight.

    Returns:
        Tensor: Coefficients (K, G, Ci / G, Co / G, 2).
    """
    out = filter_.new_empty(len(tables.places), *filter_.shape[1:])
    inputs = filter_.contiguous(), tables.places, tables.factors, gate
    _fold(*inputs, weight, gate_local, norm, out=out)
    return out


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
    grad_filter = torch.empty_like(filter_, memory_format=torch.contiguous_format)
    groups = -(-len(filter_) // _ROWS)
    blocks = -(-filter_[0].numel() // _BLOCK)
    gates = filter_.new_empty(groups * blocks)
    count = 0 if local is None else local[0].numel() + local[1].numel()
    sums = filter_.new_empty(groups, count)
    _unfold(
        products,
        filter_.contiguous(),
        tables.uses,
        tables.weights,
        tables.use_counts,
        gate,
        torch.view_as_real(grads),
        grad_filter=grad_filter,
        sums=sums,
        gates=gates,
    )
    if local is None:
        return grad_filter, gates.sum()[None]
    grad_weight, grad_bias, _ = grads_local = [torch.empty_like(z) for z in local]
    grad_gate = torch.empty_like(gate)
    parts = filter_.new_empty(-(-count // _BLOCK))
    outs = dict(grad_weight=grad_weight, grad_bias=grad_bias, grad_gate=grad_gate)
    _finish(sums, gates, *local, **outs, grad_local=parts)
    grads_local[2] = parts.sum()[None] if len(parts) > 1 else parts
    return grad_filter, grad_gate, *grads_local


def _launch_fold(
    filter: Tensor,
    places: Tensor,
    factors: Tensor,
    gate: Tensor,
    weight: Tensor | None,
    gate_local: Tensor | None,
    norm: float,
    *,
    out: Tensor,
) -> None:
    from . import filter_kernels

    numbers = filter[0].numel()
    fans = filter.shape[2:4]
    merge = weight is not None
    local = (weight, gate_local) if merge else (gate, gate)
    grid = len(places), -(-numbers // _BLOCK)
    with torch.cuda.device_of(filter):
        filter_kernels.fold[grid](
            *(filter, places, factors, gate, *local, out, norm, numbers, *fans),
            MERGE=merge,
            BLOCK=_BLOCK,
        )


def _launch_unfold(
    products: Tensor,
    filter: Tensor,
    uses: Tensor,
    weights: Tensor,
    counts: Tensor,
    gate: Tensor,
    grads: Tensor,
    *,
    grad_filter: Tensor,
    sums: Tensor,
    gates: Tensor,
) -> None:
    from . import filter_kernels

    numbers, count, samples = filter[0].numel(), len(filter), grads.shape[2]
    inputs = products, filter, uses, weights, counts, gate, grads
    # Samples whose gradients a group of programs adds up.
    share = -(-samples // len(sums))
    sizes = numbers, *filter.shape[2:4], count, samples, share
    grid = len(sums), -(-numbers // _BLOCK)
    with torch.cuda.device_of(filter):
        filter_kernels.unfold[grid](
            *(*inputs, grad_filter, sums, gates, *sizes),
            USES=len(weights),
            MERGE=sums.shape[1] > 0,
            ROWS=_ROWS,
            BLOCK=_BLOCK,
        )


def _launch_finish(
    sums: Tensor,
    gates: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate_local: Tensor,
    *,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_gate: Tensor,
    grad_local: Tensor,
) -> None:
    from . import filter_kernels

    inputs = sums, gates, weight, bias, gate_local
    outs = grad_weight, grad_bias, grad_gate, grad_local
    sizes = len(sums), weight.numel(), bias.numel(), gates.numel()
    with torch.cuda.device_of(weight):
        filter_kernels.finish[(len(grad_local),)](*inputs, *outs, *sizes, BLOCK=_BLOCK)


_fold = add_kernel(
    'fold_filter(Tensor filter, Tensor places, Tensor factors, Tensor gate, '
    'Tensor? weight, Tensor? gate_local, float norm, *, Tensor(a!) out) -> ()',
    _launch_fold,
)
_unfold = add_kernel(
    'unfold_gradients(Tensor products, Tensor filter, Tensor uses, Tensor weights, '
    'Tensor counts, Tensor gate, Tensor grads, *, Tensor(a!) grad_filter, '
    'Tensor(b!) sums, Tensor(c!) gates) -> ()',
    _launch_unfold,
)
_finish = add_kernel(
    'finish_gradients(Tensor sums, Tensor gates, Tensor weight, Tensor bias, '
    'Tensor gate_local, *, Tensor(a!) grad_weight, Tensor(b!) grad_bias, '
    'Tensor(c!) grad_gate, Tensor(d!) grad_local) -> ()',
    _launch_finish,
)
