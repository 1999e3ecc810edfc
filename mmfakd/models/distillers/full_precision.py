# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses in float32, whatever the networks run in."""

from __future__ import annotations

from typing import Any

import torch
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
        loss (nn.Module): The loss; hooks are added to it. Full precision that comes
            in is not touched.
    """
    loss._autocasts = []  # type: ignore[assignment]
    loss.register_forward_pre_hook(_begin, with_kwargs=True)
    loss.register_forward_hook(_end, always_call=True)


def _begin(loss: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    args, kwargs = _widen(args), _widen(kwargs)
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


def _widen(value: Any) -> Any:
    """A value with its tensors in half precision in float32."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALVES else value
    if isinstance(value, dict):
        return {key: _widen(item) for key, item in value.items()}
    # Only plain ones: others may have arguments of their own.
    if type(value) in (list, tuple):
        return type(value)(_widen(item) for item in value)
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
