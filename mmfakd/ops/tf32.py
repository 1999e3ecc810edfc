# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What GPUs may round to TensorFloat-32."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class TF32(NamedTuple):
    """What float32 tensors a GPU may round to ten bits.

    Attributes:
        matmul (bool): Those of products of matrices. PyTorch's default: no.
        convolution (bool): Those of convolutions. PyTorch's default: yes.
    """

    matmul: bool
    convolution: bool


def tf32() -> TF32:
    """Read PyTorch's settings, whichever of its two interfaces they were made by.

    From PyTorch 2.9 on, reading ``allow_tf32`` raises where ``fp32_precision`` was set.

    Returns:
        TF32: What may be rounded.
    """
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    exact = ('none', 'ieee')
    try:
        return TF32(
            matmul.fp32_precision not in exact, cudnn.conv.fp32_precision not in exact
        )
    except (AssertionError, AttributeError):
        # What these modules do not know is the former.
        return TF32(matmul.allow_tf32, cudnn.allow_tf32)
