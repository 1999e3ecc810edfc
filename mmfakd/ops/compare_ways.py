# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether two ways compute the same, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .tf32 import tf32

# Rounding that is no error, relative to the largest number of a tensor.
_TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
# Where float32 may be rounded to TensorFloat-32, which has float16's ten bits.
_ROUNDED = _TOLERANCES[torch.float16]
# What a single number counts as at least, relative to the norms of the others.
_SMALL = 0.1
_CALLS = 3


class WrongResult(ArithmeticError):
    """A way computes something else than the reference."""


def results_of(run: Callable[..., Tensor], inputs: tuple[Any, ...]) -> list[Tensor]:
    """Compute a way forward and backward, beside the graph that is being built.

    Args:
        run (Callable): The way.
        inputs (tuple): Tensors and other values. Those that a gradient is wanted of
            get none.

    Returns:
        list[Tensor]: The output, and the gradients for one that is the same each time.
    """
    # What a checkpoint or an offloading hook keeps is none of its business.
    keep = torch.autograd.graph.saved_tensors_hooks(lambda z: z, lambda z: z)
    with torch.enable_grad(), keep:
        own, learned = [], []
        for value in inputs:
            if isinstance(value, Tensor) and value.requires_grad:
                value = value.detach().requires_grad_()
                learned.append(value)
            own.append(value)
        out = run(*own)
        places = torch.arange(out.numel(), device=out.device, dtype=torch.float32)
        grad = places.cos_().view(out.shape).to(out.dtype)
        return [out.detach(), *torch.autograd.grad(out, learned, grad)]


def compare(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Refuse results that differ from those of the reference by more than rounding.

    Args:
        actual (list[Tensor]): The results of a way.
        expected (list[Tensor]): Those of the reference.

    Raises:
        WrongResult: If they differ.
    """
    # One number may be a small sum of many that are not, as the gradient of a gate.
    least = _SMALL * max(b.double().norm().item() for b in expected)
    for i, (a, b) in enumerate(zip(actual, expected)):
        name = f'gradient {i}' if i else 'the output'
        if a.shape != b.shape or a.dtype != b.dtype:
            raise WrongResult(
                f'{name} has shape {tuple(a.shape)} and dtype {a.dtype}, expected '
                f'{tuple(b.shape)} and {b.dtype}'
            )
        if not b.numel():
            continue
        tolerance = _TOLERANCES.get(b.dtype, 1e-4)
        if b.is_cuda and b.dtype == torch.float32 and any(tf32()):
            tolerance = _ROUNDED
        scale = b.abs().max().item()
        if b.numel() == 1:
            scale = max(scale, least)
        error = (a.double() - b.double()).abs().max().item()
        # Not `>`, which is false of what is no number.
        if not error <= tolerance * scale:
            raise WrongResult(
                f'{name} differs by {error:.2g} where numbers go up to {scale:.2g}'
            )


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Time a call.

    Args:
        run (Callable): The call.
        device (torch.device): Where it computes: on a GPU by its own events, which
            includes waiting for the host to hand it the work.

    Returns:
        float: Seconds of one call.
    """
    if device.type != 'cuda':
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        begin.record()
        for _ in range(_CALLS):
            run()
        end.record()
        end.synchronize()
    return begin.elapsed_time(end) / 1e3 / _CALLS
