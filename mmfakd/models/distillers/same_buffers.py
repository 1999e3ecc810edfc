# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Passes through a network that leave its statistics as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


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
        for module, name, buffer, value in buffers:
            # By `data`, as the graph may have saved the buffer for its backward pass.
            buffer.data.copy_(value)
            module._buffers[name] = buffer
