# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Random weights that are the same in any order of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def plain_order(*models: nn.Module) -> Iterator[None]:
    """Let weights that have channels last be drawn as if they had not.

    Random numbers fill a tensor in the order of its memory, so that one seed would give
    other weights. Afterwards each has its own memory again, with the new values.

    Args:
        models (nn.Module): Models of any order of memory, which are initialised within.
    """
    weights = [p for model in models for p in model.parameters() if _is_last(p)]
    turned = [(weight, weight.data) for weight in dict.fromkeys(weights)]
    for weight, memory in turned:
        weight.data = memory.contiguous()
    try:
        yield
    finally:
        for weight, memory in turned:
            memory.copy_(weight.data)
            weight.data = memory


def _is_last(weight: nn.Parameter) -> bool:
    last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return last and not weight.is_contiguous()
