# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether the CPU computes in float16 under autocast."""

import pytest
import torch
import torch.nn.functional as F


def cpu_has_float16():
    """Not before torch 2.2 or so; it then says so or goes on in float32."""
    try:
        with torch.autocast('cpu', dtype=torch.float16):
            out = F.linear(torch.ones(1, 1), torch.ones(1, 1))
    except RuntimeError:
        return False
    return out.dtype == torch.float16


needs_cpu_float16 = pytest.mark.skipif(
    not cpu_has_float16(), reason='no float16 on CPU in this torch'
)
