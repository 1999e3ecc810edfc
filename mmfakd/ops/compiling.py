# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether to compute in plain operations, in any version of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Public since torch 2.3.
is_compiling = getattr(torch.compiler, 'is_compiling', None) or (
    torch._utils.is_compiling
)


def is_compiled(model: nn.Module) -> bool:
    """Tell whether a model or a part of it was handed to a compiler.

    Args:
        model (nn.Module): The model.

    Returns:
        bool: Whether it was, be it by ``part.compile()`` or ``torch.compile(part)``.
    """
    return bool(compiled_parts(model))


def compiled_parts(model: nn.Module) -> set[nn.Module]:
    """Find what a compiler has of a model.

    Args:
        model (nn.Module): The model.

    Returns:
        set[nn.Module]: The parts that were handed to it, and all that is in them.
    """
    return {
        module
        for part in model.modules()
        if getattr(part, '_compiled_call_impl', None) or '_orig_mod' in part._modules
        for module in part.modules()
    }


# Where the hand-written passes run: they write into views of complex tensors.
_DEVICES = ('cpu', 'cuda', 'meta')


def is_foreign(x: Tensor) -> bool:
    """Whether a tensor lies where the hand-written passes do not run.

    Args:
        x (Tensor): An input.

    Returns:
        bool: True on devices such as ``mps``: plain operations, of which autograd knows
        the gradients, are the way to compute there.
    """
    return x.device.type not in _DEVICES


def kept(make: Any, like: Tensor) -> Any:
    """Take a function that keeps what it made, unless it is for a tensor without data.

    Args:
        make (Callable): The function, in an ``lru_cache``.
        like (Tensor): A tensor that what is made is for.

    Returns:
        Callable: The function, without its cache for PyTorch's fake tensors, which
        claim to lie on a real device, and mix with no others, and for a compiler.
    """
    fake = type(like).__name__ == 'FakeTensor'
    return make.__wrapped__ if fake or is_compiling() else make


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy what was made on the host to a device, without waiting for it.

    Args:
        tensor (Tensor): The tensor.
        device (torch.device): The device.

    Returns:
        Tensor: The copy.
    """
    if device.type == 'cuda':
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
