# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Restarts, two hosts, and Slurm: `pytest -m cluster tests/test_tools/test_cluster.py`.

Two hosts are network namespaces of this machine, which only root can make; Slurm is
that of `tests/helpers/one_machine_slurm.sh`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

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

pytestmark = pytest.mark.cluster
ROOT = hasattr(os, 'geteuid') and os.geteuid() == 0
TRAIN = ('bash', REPOSITORY / 'tools/dist_train.sh')
COMMAND = (sys.executable, '-m', 'mmfakd', 'train')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('cluster'))


@pytest.fixture(scope='module')
def whole(config):
    """Losses of two processes that nobody kills."""
    work_dir, log = config.parent / 'whole', config.parent / 'whole.log'
    process = start(*TRAIN, config, 2, '--work-dir', work_dir, log=log)
    assert process.wait() == 0
    return losses(work_dir)


def test_nothing_trains_on_without_torchrun(config):
    work_dir, log = config.parent / 'orphans', config.parent / 'orphans.log'
    process = start(*TRAIN, config, 2, '--work-dir', work_dir, log=log, PACE=0.1)
    wait_for(lambda: len(losses(work_dir)) >= 5, process)
    below = descendants(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(below), seconds=20)
    assert (work_dir / 'interrupted.pth').is_file()


@pytest.mark.parametrize('form', ['script', 'command'])
def test_torchrun_restarts_from_the_last_checkpoint(form, config, whole):
    work_dir, log = config.parent / form, config.parent / f'{form}.log'
    train = {
        'script': (*TRAIN, config, 2),
        'command': (*COMMAND, config, '--nproc=2', '--max-restarts=1'),
    }[form]
    process = start(*train, '--work-dir', work_dir, log=log, PACE=0.1, MAX_RESTARTS=1)
    wait_for(lambda: len(losses(work_dir)) >= 25, process)
    os.kill(max(descendants(process.pid)), signal.SIGKILL)
    assert process.wait() == 0
    assert losses(work_dir) == whole
    assert len([*work_dir.glob('2*')]) == 2


def test_torchrun_does_not_restart_at_the_time_limit(config):
    work_dir, log = config.parent / 'limit', config.parent / 'limit.log'
    process = start(
        *(*TRAIN, config, 2, '--work-dir', work_dir),
        *('--cfg-options', 'default_hooks.preemption.time_limit=9'),
        log=log,
        PACE=0.5,
        MAX_RESTARTS=3,
    )
    assert process.wait(timeout=60) == 1
    assert log.read_text().count('Ended by time limit of 9 s') == 1


@pytest.fixture
def hosts():
    """Two network namespaces, joined by a cable."""
    if not ROOT or shutil.which('ip') is None:
        pytest.skip('network namespaces need root and iproute2')
    names = [f'mmfakd{os.getpid()}{letter}' for letter in 'ab']
    ends = [name[-10:] for name in names]
    try:
        for name in names:
            ip('netns', 'add', name)
        ip('link', 'add', ends[0], 'type', 'veth', 'peer', 'name', ends[1])
        for number, (name, end) in enumerate(zip(names, ends), 1):
            ip('link', 'set', end, 'netns', name)
            ip('-n', name, 'addr', 'add', f'10.77.0.{number}/24', 'dev', end)
            ip('-n', name, 'link', 'set', end, 'up')
            ip('-n', name, 'link', 'set', 'lo', 'up')
        yield [*zip(names, ends)]
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'delete', name])


def ip(*words):
    subprocess.run(['ip', *words], check=True)


def test_a_host_is_killed_and_comes_back(hosts, config, whole):
    work_dir = config.parent / 'hosts'
    port = free_port()

    def start_host(rank):
        name, device = hosts[rank]
        return start(
            *('ip', 'netns', 'exec', name, *TRAIN, config, 1, '--work-dir', work_dir),
            # Both have this machine's name, so its address has to be told.
            f'--local-addr=10.77.0.{rank + 1}',
            log=config.parent / f'host{rank}.log',
            **dict(NNODES=2, NODE_RANK=rank, MASTER_ADDR='10.77.0.1', PORT=port),
            **dict(MAX_RESTARTS=3, GLOO_SOCKET_IFNAME=device, PACE=0.2),
        )

    first, second = map(start_host, (0, 1))
    wait_for(lambda: len(losses(work_dir)) >= 35, first)
    for pid in (second.pid, *descendants(second.pid)):
        os.kill(pid, signal.SIGKILL)
    second.wait()
    time.sleep(5)
    assert first.poll() is None
    second = start_host(1)
    assert first.wait(timeout=120) == second.wait(timeout=30) == 0
    assert losses(work_dir) == whole


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    """What jobs need to know of a cluster of this machine."""
    if not ROOT or not all(map(shutil.which, ('munged', 'slurmctld', 'slurmd'))):
        pytest.skip('Slurm needs root, and munge, slurmctld, slurmd and slurm-client')
    folder = tmp_path_factory.mktemp('slurm')
    script = REPOSITORY / 'tests/helpers/one_machine_slurm.sh'
    subprocess.run(
        ['bash', script, 'start', folder],
        check=True,
        env=dict(
            os.environ,
            SLURMCTLD_PORT=str(free_port()),
            SLURMD_PORT=str(free_port()),
        ),
    )
    yield dict(SLURM_CONF=folder / 'slurm.conf', GPUS=2, GPUS_PER_NODE=0)
    subprocess.run(['bash', script, 'stop', folder], check=True)


def submit(slurm, config, work_dir, **more):
    """Start a batch job.

    Returns:
        Its number and the file that it writes to.
    """
    said = subprocess.run(
        ['bash', REPOSITORY / 'tools/slurm_train.sh', 'cpu', 'job', config, work_dir],
        cwd=config.parent,
        env=environment(**slurm, BATCH=1, CPUS_PER_TASK=1, **more),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    job = re.findall(r'\d+', said)[-1]
    return job, config.parent / f'slurm-{job}.out'


def state(slurm, job):
    """What Slurm says of a job."""
    said = subprocess.run(
        ['scontrol', 'show', 'job', job],
        env=environment(**slurm),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return dict(re.findall(r'(JobState|Restarts)=(\S+)', said))


def test_slurm_at_once(slurm, config, whole):
    work_dir, log = config.parent / 'srun', config.parent / 'srun.log'
    process = start(
        *('bash', REPOSITORY / 'tools/slurm_train.sh', 'cpu', 'job', config, work_dir),
        log=log,
        CPUS_PER_TASK=1,
        **slurm,
    )
    assert process.wait() == 0
    assert losses(work_dir) == whole


def test_slurm_ends_a_job_before_its_limit_and_it_goes_on(slurm, config, whole):
    """Slurm looks at its clock twice a minute, and may signal a minute early."""
    work_dir = config.parent / 'requeued'
    limit = dict(SBATCH_ARGS='--time=2', SIGNAL='USR1@50', PACE=1.5)
    job, out = submit(slurm, config, work_dir, **limit)
    wait_for(lambda: state(slurm, job)['JobState'] == 'COMPLETED', seconds=600)
    assert int(state(slurm, job)['Restarts']) >= 1
    assert 'Ended by SIGUSR1' in out.read_text()
    assert losses(work_dir) == whole


def test_slurm_leaves_a_cancelled_job_alone(slurm, config):
    work_dir = config.parent / 'cancelled'
    job, out = submit(slurm, config, work_dir, PACE=0.5)
    wait_for(lambda: len(losses(work_dir)) >= 3)
    subprocess.run(['scancel', job], env=environment(**slurm), check=True)
    wait_for(lambda: state(slurm, job)['JobState'] == 'CANCELLED')
    wait_for(lambda: (work_dir / 'interrupted.pth').is_file(), seconds=20)
    assert 'queued again' not in out.read_text()
