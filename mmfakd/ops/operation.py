# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""An operation that can be computed in several ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .tf32 import TF32, tf32
from .way import Way


@dataclass(frozen=True)
class Operation:
    """An operation that can be computed in several ways.

    Attributes:
        name (str): Its name.
        ways (Mapping[str, Way]): Name -> way; all take the same inputs.
        reference (Callable): Names the way that inputs are computed in unless another
            one is known to be faster; it runs wherever the operation does.
    """

    name: str
    ways: Mapping[str, Way]
    reference: Callable[..., str]

    def key(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Describe inputs as far as a choice depends on them.

        Args:
            inputs (tuple): Tensors, the first one among them, and other values.

        Returns:
            tuple: Name, device, what may be rounded on it, and shape, dtype and
            layout of every tensor.
        """
        device = inputs[0].device
        rounds = tf32() if device.type == 'cuda' else None
        return (self.name, device, rounds, *map(_describe, inputs))

    def label(self, inputs: tuple[Any, ...]) -> str:
        """Describe inputs in words that hold in another process, too.

        Args:
            inputs (tuple): As of :meth:`key`.

        Returns:
            str: The description.
        """
        name, device, rounds, *described = self.key(inputs)
        place = f'CPU, {torch.get_num_threads()} threads'
        if device.type == 'cuda':
            place = torch.cuda.get_device_name(device) + _rounding(rounds)
        sizes = [_in_words(one) for one in described if one is not None]
        return ' | '.join([name, place, *sizes])


def _rounding(rounds: TF32) -> str:
    """What is rounded otherwise than by PyTorch's default."""
    matmul = ', TF32' if rounds.matmul else ''
    return matmul + ('' if rounds.convolution else ', exact convolutions')


def _describe(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    last = value.dim() == 4 and not value.is_contiguous()
    return value.shape, value.dtype, last


def _in_words(described: Any) -> str:
    if isinstance(described, tuple) and isinstance(described[0], torch.Size):
        shape, dtype, last = described
        words = 'x'.join(map(str, shape)) + f' {str(dtype).rpartition(".")[2]}'
        return words + (' channels last' if last else '')
    return str(described)
