# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Signals to `tools/dist_train.sh` and to a training with data workers."""

import os
import signal

import pytest

from tests.helpers.forked import Forked
from tests.helpers.process_runs import (
    REPOSITORY,
    alive,
    descendants,
    environment,
    free_port,
    losses,
    start,
    wait_for,
    write_config,
)

SCRIPT = ('bash', REPOSITORY / 'tools/dist_train.sh')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('preemption'), epochs=2)


def train_without_a_script(config, *options):
    """Train to the end in two processes such as torchrun starts."""
    address = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    environ = environment(**address, WORLD_SIZE=2)
    processes = [
        Forked(
            *('-m', 'mmfakd', 'train', config, '--launcher', 'pytorch', *options),
            cwd=config.parent,
            env={**environ, 'RANK': str(rank), 'LOCAL_RANK': str(rank)},
            stdout=config.parent / f'rank{rank}.log',
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]


def test_two_processes_save_and_go(config):
    folder = config.parent
    # Two times out of three the signal comes within a cycle.
    cycle = ('--cfg-options', 'optim_wrapper.accumulative_counts=3')
    train_without_a_script(config, *cycle, '--work-dir', folder / 'w')

    work_dir, log = folder / 'two', folder / 'two.log'
    command = (*SCRIPT, config, 2, *cycle, '--work-dir', work_dir)
    process = start(*command, log=log, PACE=0.1)
    wait_for(lambda: len(losses(work_dir)) >= 13, process)
    below = descendants(process.pid)
    assert len(below) >= 2
    process.terminate()
    # The status is torchrun's own.
    assert process.wait(timeout=20) == 1
    assert not alive(below)
    assert log.read_text().count('Ended by SIGTERM') == 1
    assert (work_dir / 'interrupted.pth').is_file()

    process = start(*command, '--resume', log=folder / 'resumed.log')
    assert process.wait() == 0
    assert losses(work_dir) == losses(folder / 'w')


def test_a_signal_to_all_processes_spares_the_data_workers(config):
    """As a terminal and Slurm send it."""
    work_dir, log = config.parent / 'workers', config.parent / 'workers.log'
    process = Forked(
        *('-m', 'mmfakd', 'train', config, '--work-dir', work_dir),
        *('--cfg-options', 'train_dataloader.num_workers=2'),
        cwd=config.parent,
        env=environment(PACE=0.05),
        stdout=log,
        start_new_session=True,
    )
    wait_for(lambda: len(losses(work_dir)) >= 3, process)
    below = descendants(process.pid)
    assert len(below) >= 2
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    wait_for(lambda: not alive(below), seconds=10)
    assert 'DataLoader worker' not in log.read_text()
    assert (work_dir / 'interrupted.pth').is_file()
