# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether ``torch.compile`` traces the code that asks, in any version of torch."""

from __future__ import annotations

import torch

# Public since torch 2.3.
is_compiling = getattr(torch.compiler, 'is_compiling', None) or (
    torch._utils.is_compiling
)
