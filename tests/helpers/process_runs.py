# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Trainings in processes of their own, to be sent signals and killed."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = REPOSITORY / 'configs/fakd/digits/fakd_review_r18w32_r18w4_1xb50_digits.py'


def write_config(folder, epochs=6):
    """Write a config of 20 batches of 10 digits an epoch, under a random teacher.

    Checkpoints are written every other epoch; `PACE` seconds are added to a step.

    Returns:
        Its path.
    """
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    teacher = MODELS.build(Config.fromfile(DIGITS).model.teacher)
    torch.save(teacher.state_dict(), folder / 'teacher.pth')
    path = folder / 'config.py'
    path.write_text(
        f"""
_base_ = {str(DIGITS)!r}
custom_imports = dict(imports=['rank_hooks'])
custom_hooks = [dict(type='Pace')]
model = dict(teacher_ckpt={str(folder / 'teacher.pth')!r})
train_cfg = dict(max_epochs={epochs})
train_dataloader = dict(batch_size=10, dataset=dict(times=4))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""
    )
    return path


def environment(**more):
    """Of a process that runs this checkout."""
    return {
        **os.environ,
        'PYTHONPATH': f'{REPOSITORY}{os.pathsep}{REPOSITORY / "tests/helpers"}',
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
        'PORT': str(free_port()),
        **{name: str(value) for name, value in more.items()},
    }


def start(*command, log, **more):
    """Start a command in a session of its own; all that it says goes to a file."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=log.parent,
        env=environment(**more),
        stdout=log.open('w'),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def losses(work_dir):
    """Iteration -> losses, of all runs of a work dir, the last one first."""
    found = {}
    for file in sorted(work_dir.glob('2*/vis_data/scalars.json')):
        # Of a run that was killed the last line may be half.
        for line in file.read_text().split('\n'):
            row = json.loads(line) if line.endswith('}') else {}
            if 'loss' in row:
                found[row['step']] = {k: v for k, v in row.items() if 'loss' in k}
    return found


def wait_for(condition, process=None, seconds=120):
    """Wait until something is so, as long as a process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, 'ended too early'
        assert time.monotonic() < end, 'took too long'
        time.sleep(0.02)


def descendants(pid):
    """Processes below one, zombies left out."""
    parents = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            fields = (folder / 'stat').read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if fields[0] != 'Z':
            parents[int(folder.name)] = int(fields[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


def alive(pids):
    """Those of some processes that still run."""
    # Their parents may have gone, so that others adopted them.
    return {pid for pid in pids if Path(f'/proc/{pid}').exists()} & descendants(0)
