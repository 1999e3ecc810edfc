# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Golden vectors: numbers of the published FAM-KD and ReviewKD implementations."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_FOLDER = Path(__file__).parents[1] / 'data' / 'golden'


def load_golden(name: str) -> dict[str, Tensor]:
    """Arrays of one file as tensors."""
    with np.load(_FOLDER / f'{name}.npz') as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def strip_prefix(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries of that prefix, without it."""
    return {k[len(prefix) :]: v for k, v in golden.items() if k.startswith(prefix)}


def distance(actual: Tensor, expected: Tensor) -> float:
    """max|a - b| / max|b|, what "within x relative" means in all tests."""
    expected = expected.detach().reshape(actual.shape)
    difference = (actual.detach() - expected).abs().max()
    return (difference / expected.abs().max()).item()
