# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether to compute in plain operations, in any version of torch."""

from __future__ import annotations

import torch
from torch import Tensor

# Public since torch 2.3.
is_compiling = getattr(torch.compiler, 'is_compiling', None) or (
    torch._utils.is_compiling
)

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
