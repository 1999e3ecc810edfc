# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Passes through a network that leave its statistics as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def same_buffers(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put the buffers of networks back, be they changed in place or replaced.

    Args:
        modules (Sequence[nn.Module]): The networks.

    Yields:
        None: The block may run them.
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for root in modules
        for module in root.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, _ in buffers:
            module._buffers[name] = buffer
        for _, _, buffer, value in buffers:
            # Some, such as expanded ones, cannot be written, nor have they changed.
            if not _same(buffer, value):
                # By `data`, as the graph may have saved it for its backward pass.
                buffer.data.copy_(value)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; what is no number equals itself."""
    try:
        if torch.equal(one, other):
            return True
        close = torch.isclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
        return bool(close.all())
    except RuntimeError:
        # Kinds that compare to nothing, such as sparse ones.
        return False
