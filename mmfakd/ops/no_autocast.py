# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Autocast off, on any kind of device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from .compiling import is_compiling


def no_autocast(like: Tensor) -> AbstractContextManager:
    """Switch autocast off where a tensor lies.

    Args:
        like (Tensor): The tensor. On ``meta``, and on ``mps`` before torch 2.5, there
            is no autocast, and PyTorch refuses to switch it off.

    Returns:
        AbstractContextManager: What to compute in.
    """
    kind = like.device.type
    # A compiler sees through the first, but not through an error that is caught.
    if kind in ('cpu', 'cuda') or (not is_compiling() and _has_autocast(kind)):
        return torch.autocast(device_type=kind, enabled=False)
    return nullcontext()


@lru_cache(maxsize=8)
def _has_autocast(kind: str) -> bool:
    try:
        torch.autocast(device_type=kind, enabled=False)
    except RuntimeError:
        return False
    return True
