# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Batches of an iteration based loop that is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class ResumedBatches:
    """Batches of a loop that drops those that are done, and then goes on.

    MMEngine 0.10.7 drops them one by one; onedl-mmengine 0.10.12 asks for it, and would
    itself leave the workers where they were not: it moves the sampler alone.

    Args:
        batches (Iterator): The batches, from the first.
        done (int): How many are done.
        go_on (Callable): Called once these are loaded.
    """

    def __init__(self, batches: Iterator, done: int, go_on: Callable[[], None]) -> None:
        self.batches = batches
        self.left = done
        self.go_on = go_on

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        batch = next(self.batches)
        self.left -= 1
        if self.left == 0:
            self.go_on()
        return batch

    def skip_iter(self, count: int) -> None:
        """Load batches and drop them.

        Args:
            count (int): Their number.
        """
        for _ in range(count):
            next(self)
