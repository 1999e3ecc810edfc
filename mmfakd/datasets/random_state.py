# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Work beside a training that draws none of its random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def same_random_state() -> Iterator[None]:
    """Put the generators of ``random``, numpy and torch back where they were.

    Transforms draw from all three. On a GPU it is the generator of the current one.

    Yields:
        None: The block may draw what it likes.
    """
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
