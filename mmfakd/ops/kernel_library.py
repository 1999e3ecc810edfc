# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Triton kernels as operations of PyTorch, and where they run."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable

import torch
from torch import Tensor

# As operations they are seen by whatever watches what is dispatched, and pass on the
# device without data.
_LIBRARY = torch.library.Library('mmfakd', 'DEF')


def add_kernel(schema: str, launch: Callable[..., None]) -> Callable[..., None]:
    """Make a launch an operation that fills tensors it is given.

    Args:
        schema (str): Its schema, such as ``'f(Tensor x, *, Tensor(a!) out) -> ()'``.
        launch (Callable): Launches the kernel, or, where Triton interprets, runs it.

    Returns:
        Callable: The operation.
    """
    name = schema.partition('(')[0]
    _LIBRARY.define(schema)
    for device in ('CUDA', 'CPU'):
        _LIBRARY.impl(name, launch, device)
    _LIBRARY.impl(name, lambda *tensors, **options: None, 'Meta')
    return getattr(torch.ops.mmfakd, name)


def runs_kernels(x: Tensor) -> bool:
    """Tell whether kernels run where a tensor lies, and are not ruled out.

    Args:
        x (Tensor): The tensor.

    Returns:
        bool: Whether to try. ``MMFAKD_TRITON=0`` in the environment says no.
    """
    if not x.is_cuda or os.environ.get('MMFAKD_TRITON') == '0':
        return False
    return _has_triton(x.device)


@functools.cache
def _has_triton(device: torch.device) -> bool:
    """Whether Triton is installed and supports the device."""
    if importlib.util.find_spec('triton') is None:
        return False
    if torch.version.hip:
        return True
    return torch.cuda.get_device_capability(device) >= (7, 0)
