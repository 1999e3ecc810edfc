# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Data workers outlive a signal that is sent to all; nobody outlives its parent."""

import os
import signal
import subprocess
import sys
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
    with pytest.raises(RuntimeError, match='DataLoader worker'):
        list(batches)


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux does this')
def test_a_process_ends_with_its_parent(tmp_path):
    file = tmp_path / 'pid'
    child = (
        'import os, signal, time; from mmfakd.engine.signals import end_with_parent; '
        'end_with_parent(signal.SIGTERM); '
        f'open({str(file)!r}, "w").write(str(os.getpid())); time.sleep(60)'
    )
    code = 'import subprocess, sys; subprocess.run([sys.executable, "-c", sys.argv[1]])'
    parent = subprocess.Popen([sys.executable, '-c', code, child])
    wait(lambda: file.exists() and file.read_text())
    parent.kill()
    parent.wait()
    wait(lambda: not alive(int(file.read_text())))


def alive(pid):
    try:
        # A process that has ended and that nobody has asked about is still listed.
        return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def wait(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
