# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Data workers outlive a signal that is sent to all, unless their parent sent it."""

import os
import signal
import subprocess
import time

import pytest
import torch
from torch.utils.data import DataLoader

from mmfakd.engine.signals import shield_workers

SIGNALS = (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)


class Pids(torch.utils.data.Dataset):
    """The process that loads."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        time.sleep(0.02)
        return os.getpid()


def seen(worker_id):
    assert worker_id in (0, 1)


def test_workers_ignore_what_others_send_and_obey_their_parent():
    loader = DataLoader(Pids(), num_workers=2, worker_init_fn=seen)
    shield_workers(loader, SIGNALS)
    batches = iter(loader)
    workers = {int(next(batches)) for _ in range(4)}
    for worker in workers:
        for signum in SIGNALS:
            # Not from the parent.
            subprocess.run(['kill', f'-{int(signum)}', str(worker)], check=True)
    workers |= {int(batch) for batch in batches}
    assert len(workers) == 2 and os.getpid() not in workers
    loader = DataLoader(Pids(), num_workers=1)
    shield_workers(loader, SIGNALS)
    batches = iter(loader)
    worker = int(next(batches))
    os.kill(worker, signal.SIGTERM)
    # What PyTorch makes of it depends on where the worker was.
    with pytest.raises((RuntimeError, OSError, EOFError)):
        list(batches)
    [process] = batches._workers
    process.join(60)
    assert (process.pid, process.exitcode) == (worker, 0)
