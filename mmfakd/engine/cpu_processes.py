# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Several processes without a GPU."""

from __future__ import annotations

import os
import subprocess
from subprocess import PIPE

import torch
import torch.distributed as dist
from mmengine.config import Config

from .launchers import OPEN_MPI


def init_cpu_distributed(cfg: Config) -> None:
    """Prepare a config and the process group for several processes on CPU.

    MMEngine's launchers call ``torch.cuda.set_device`` whatever the machine, and its
    DDP wrapper names a GPU. Where ``cfg.launcher`` is ``'pytorch'``, ``'slurm'`` or
    ``'mpi'`` and there is no GPU, this starts the process group with gloo before the
    runner looks for it, and sets a wrapper without device. With a GPU nothing is
    changed.

    Args:
        cfg (Config): The config of the runner, changed in place.
    """
    if torch.cuda.is_available():
        return
    if cfg.get('launcher') == 'slurm' and 'SLURM_PROCID' in os.environ:
        _name_meeting_place()
    elif cfg.get('launcher') == 'mpi' and OPEN_MPI['RANK'] in os.environ:
        os.environ.update(
            {name: os.environ.get(theirs, '1') for name, theirs in OPEN_MPI.items()}
        )
        os.environ.setdefault('MASTER_PORT', '29500')
    elif cfg.get('launcher') != 'pytorch':
        return
    # Two processes that each take every core wait for each other.
    workers = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper.update(cfg.get('model_wrapper_cfg') or {}, device_ids=None)
    cfg.model_wrapper_cfg = wrapper


def _name_meeting_place() -> None:
    """Set what torch's launcher would, from what Slurm says."""
    slurm = {name: value for name, value in os.environ.items() if 'SLURM_' in name}
    tasks = slurm['SLURM_NTASKS']
    if 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostnames', slurm['SLURM_NODELIST']]
        hosts = subprocess.run(command, stdout=PIPE, text=True, check=True).stdout
        os.environ['MASTER_ADDR'] = hosts.split()[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    os.environ.update(
        RANK=slurm['SLURM_PROCID'],
        WORLD_SIZE=tasks,
        LOCAL_RANK=slurm['SLURM_LOCALID'],
        LOCAL_WORLD_SIZE=_own_tasks(
            slurm.get('SLURM_TASKS_PER_NODE', tasks), slurm.get('SLURM_NODEID', '0')
        ),
    )


def _own_tasks(tasks: str, node: str) -> str:
    """Tasks of one machine in Slurm's list: '4(x2),3' are four, four and three."""
    counts: list[str] = []
    for part in tasks.split(','):
        count, _, times = part.partition('(x')
        counts += [count] * int(times.rstrip(')') or 1)
    return counts[min(int(node), len(counts) - 1)]
