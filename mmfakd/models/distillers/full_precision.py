# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses in float32, whatever the networks run in."""

from __future__ import annotations

from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from mmfakd.ops.compiling import is_compiling
from mmfakd.ops.no_autocast import no_autocast

_HALVES = (torch.float16, torch.bfloat16)


def compute_in_full(loss: nn.Module) -> None:
    """Let a loss compute in float32, autocast off.

    Squares of features above 256 overflow in float16. PyTorch's autocast knows that of
    its own losses; of what a loss of the field is made of, products of matrices stay in
    half precision, and on CPUs others, too.

    Args:
        loss (nn.Module): The loss; hooks are added to it, once. Full precision that
            comes in is not touched.
    """
    if hasattr(loss, '_autocasts'):
        return
    loss._autocasts = []  # type: ignore[assignment]
    loss.register_forward_pre_hook(_begin, with_kwargs=True)
    loss.register_forward_hook(_end, always_call=True)


def compute_all_in_full(distiller: ConfigurableDistiller) -> None:
    """Let all losses of a distiller compute in float32.

    Args:
        distiller (ConfigurableDistiller): The distiller.
    """
    losses = [*distiller.distill_losses.values()]
    losses.append(getattr(distiller, 'level_loss', None))
    for loss in losses:
        if isinstance(loss, nn.Module):
            compute_in_full(loss)


def _begin(loss: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    # The field's losses call `.view`, which channels-last maps do not allow.
    own = type(loss).__module__.startswith(__name__.partition('.')[0] + '.')
    args, kwargs = _widen(args, own), _widen(kwargs, own)
    like = _first_tensor((args, kwargs))
    # A compiler traces no context that a hook leaves open.
    if like is not None and not is_compiling():
        autocast = no_autocast(like)
        autocast.__enter__()
        loss._autocasts.append(autocast)
    return args, kwargs


def _end(loss: Any, args: tuple, output: Any) -> None:
    if loss._autocasts:
        loss._autocasts.pop().__exit__(None, None, None)


def _widen(value: Any, any_layout: bool) -> Any:
    """A value with its tensors in half precision in float32, and contiguous."""
    if isinstance(value, Tensor):
        value = value.float() if value.dtype in _HALVES else value
        return value if any_layout else value.contiguous()
    if isinstance(value, dict):
        return {key: _widen(item, any_layout) for key, item in value.items()}
    # Only plain ones: others may have arguments of their own.
    if type(value) in (list, tuple):
        return type(value)(_widen(item, any_layout) for item in value)
    return value


def _first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a value."""
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, dict) else value
    if type(value) in (dict, list, tuple):
        found = map(_first_tensor, items)
        return next((tensor for tensor in found if tensor is not None), None)
    return None
