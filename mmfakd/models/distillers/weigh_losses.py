# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights of losses, all of them in one operation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mmfakd.ops.compiling import kept, to_device


def weigh_losses(
    losses: Sequence[Tensor], weights: Sequence[float], factor: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    """Multiply losses with numbers.

    Args:
        losses (Sequence[Tensor]): The losses; usually scalars.
        weights (Sequence[float]): A number for each.
        factor (float): One more for all of them. Defaults to 1.

    Returns:
        tuple[list[Tensor], list[Tensor]]: The losses times their weights, and these
        times the factor.
    """
    scalars = all(loss.dim() == 0 for loss in losses)
    if len(losses) < 2 or not scalars or len({loss.dtype for loss in losses}) > 1:
        full = [weight * loss for loss, weight in zip(losses, weights)]
        return full, full if factor == 1 else [factor * loss for loss in full]
    stacked = torch.stack(list(losses))
    if len(set(weights)) > 1:
        make = kept(_on_device, stacked)
        stacked = stacked * make(tuple(weights), stacked.dtype, stacked.device)
    elif weights[0] != 1:
        stacked = stacked * weights[0]
    full = list(stacked.unbind())
    return full, full if factor == 1 else list((stacked * factor).unbind())


def constant(value: float, like: Tensor) -> Tensor:
    """Give a number as a scalar, for the log; the same one as long as it is the same.

    Args:
        value (float): The number.
        like (Tensor): A tensor of the dtype, on the device.

    Returns:
        Tensor: The scalar. It is not to be changed.
    """
    return kept(_on_device, like)(value, like.dtype, like.device)


@lru_cache(maxsize=64)
def _on_device(
    numbers: float | tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A tensor of numbers; what is made is kept, as making it takes a copy."""
    with torch.inference_mode(False):
        return to_device(torch.tensor(numbers, dtype=dtype, device='cpu'), device)
