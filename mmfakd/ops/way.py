# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One of several ways to compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def _always(*inputs: Any) -> bool:
    return True


@dataclass(frozen=True)
class Way:
    """One of several ways to compute an operation.

    Attributes:
        run (Callable): Computes it, and can be differentiated.
        usable (Callable): Says of inputs whether to try it with them.
    """

    run: Callable[..., Tensor]
    usable: Callable[..., bool] = _always
