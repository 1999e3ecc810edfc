# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Iteration based loops that start their data workers with the first batch."""

from __future__ import annotations

from typing import Any


class LateBatches:
    """Batches of a loader that is left alone until the first of them is asked for.

    Random numbers are those of a loader that begins at once, if its sampler draws none
    of PyTorch's global ones until then; MMEngine's ``InfiniteSampler`` has its own.

    Args:
        loader (DataLoader): The loader.
    """

    def __init__(self, loader: Any) -> None:
        import torch

        self._loader = loader
        self._batches: Any = None
        self._state = torch.get_rng_state()
        if getattr(loader, 'generator', None) is None:
            # The seed of the workers, which every beginning of a loader draws.
            torch.empty((), dtype=torch.int64).random_()

    def __iter__(self) -> LateBatches:
        return self

    def __next__(self) -> Any:
        import torch

        if self._batches is None:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self._state)
                self._batches = iter(self._loader)
        return next(self._batches)


def start_batches_late() -> None:
    """Let hooks prepare the loader of an ``IterBasedTrainLoop``, as of any other.

    MMEngine 0.10 starts the data workers while it builds that loop. They are copies of
    the loader as it is then: what hooks do to it before the training, such as
    shielding workers from signals, never reaches them. The maintained line's 0.10.12
    waits by itself.
    """
    from mmengine.runner import loops

    endless = loops._InfiniteDataloaderIterator
    if hasattr(endless, 'skip_iter') or hasattr(endless.__init__, 'mmfakd'):
        return

    def init(self: Any, dataloader: Any) -> None:
        self._dataloader = dataloader
        self._iterator = LateBatches(dataloader)
        self._epoch = 0

    init.mmfakd = True  # type: ignore[attr-defined]
    endless.__init__ = init
