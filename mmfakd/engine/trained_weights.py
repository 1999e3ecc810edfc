# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Trained weights where averaged ones stand in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from mmengine.hooks import EMAHook, Hook


class TrainedWeights:
    """Puts trained weights back for a moment, whichever a model holds.

    MMEngine's ``EMAHook`` and those that inherit from it swap averaged weights in for
    a validation. When they do differs between them, and they keep no note of it, so
    that the swap itself is watched.
    """

    def __init__(self) -> None:
        self._watched: list[EMAHook] = []
        # Whose weights are in the model, in the order in which they came there.
        self._swapped: list[EMAHook] = []

    def watch(self, hooks: Iterable[Hook]) -> None:
        """Begin to note what hooks swap.

        Args:
            hooks (Iterable[Hook]): Any hooks; those that average have not swapped yet.
                They may be given again.
        """
        for hook in hooks:
            if isinstance(hook, EMAHook) and hook not in self._watched:
                self._watched.append(hook)
                swap = hook._swap_ema_parameters
                hook._swap_ema_parameters = partial(self._swap, hook, swap)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let models and averages hold what is theirs.

        Yields:
            None: While they do.
        """
        swapped = list(self._swapped)
        for hook in reversed(swapped):
            hook._swap_ema_parameters()
        try:
            yield
        finally:
            for hook in swapped:
                hook._swap_ema_parameters()

    def _swap(self, hook: EMAHook, swap: Callable[[], None]) -> None:
        swap()
        if hook in self._swapped:
            self._swapped.remove(hook)
        else:
            self._swapped.append(hook)
