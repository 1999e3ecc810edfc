# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Signs of life of an evaluation."""

from __future__ import annotations

import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.messages import progress

# Seconds between two lines, at least.
_INTERVAL = 5.0


class ProgressHook(Hook):
    """Says every few seconds how far a validation has got.

    MMEngine's own logger speaks after a number of batches, which may take minutes.
    """

    def __init__(self) -> None:
        self._spoken = 0.0

    def before_val(self, runner: Runner) -> None:
        """Say how much there is to do.

        Args:
            runner (Runner): The runner.
        """
        progress(f'evaluating {len(runner.val_dataloader)} batches')
        self._spoken = time.monotonic()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Say how much is done, if the last line is some time ago.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Number of the batch.
            *args: What came in and out of the model, likewise.
            **kwargs: What came in and out of the model, which does not matter here.
        """
        if time.monotonic() - self._spoken >= _INTERVAL:
            self._spoken = time.monotonic()
            progress(f'{batch_idx + 1} of {len(runner.val_dataloader)} batches')
