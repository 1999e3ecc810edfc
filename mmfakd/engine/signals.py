# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the processes of a training do with signals, beside saving."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from functools import partial

from torch.utils.data import DataLoader

from mmfakd.compat.parent_death import end_with_parent


def shield_workers(loader: DataLoader, signals: Iterable[int]) -> None:
    """Let the data workers of a loader live until their parent ends them.

    A terminal and Slurm send a signal to all processes. Without its workers the one
    that trains could neither finish its step nor save.

    Args:
        loader (DataLoader): The loader, whose workers are not started yet.
        signals (Iterable[int]): What they are to ignore, unless the parent sends it.
    """
    loader.worker_init_fn = partial(
        _shield_worker, signals=frozenset(signals), before=loader.worker_init_fn
    )


def _shield_worker(
    worker_id: int,
    signals: frozenset[int],
    before: Callable[[int], None] | None,
) -> None:
    end_with_parent(signal.SIGKILL)
    for signum in signals - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)
    if signal.SIGTERM in signals and hasattr(signal, 'sigwaitinfo'):
        # With this one a parent ends a worker that hangs, so somebody has to look who
        # sent it. Threads that start later inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, daemon=True).start()
    if before is not None:
        before(worker_id)


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
