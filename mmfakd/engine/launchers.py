# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What starts several processes, and how it tells each its number."""

from __future__ import annotations

import os

import torch.distributed as dist

from mmfakd.messages import documentation

# Names of torch's launcher, and those of Open MPI.
OPEN_MPI = dict(
    RANK='OMPI_COMM_WORLD_RANK',
    WORLD_SIZE='OMPI_COMM_WORLD_SIZE',
    LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK',
    LOCAL_WORLD_SIZE='OMPI_COMM_WORLD_LOCAL_SIZE',
)
# What tells a process its number before torch.distributed is up.
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi=OPEN_MPI['RANK'], none=None)
# What MMEngine asks for besides; without it these two end in a KeyError.
_MORE = dict(
    slurm=('SLURM_NTASKS',),
    mpi=(OPEN_MPI['LOCAL_RANK'], OPEN_MPI['WORLD_SIZE'], 'MASTER_ADDR'),
)
_STARTS = dict(
    pytorch='Give `--nproc 8` in its place, or start the command with torchrun',
    slurm='Start the command with `srun --ntasks=8`',
    mpi='Start the command with `mpirun -np 8 -x MASTER_ADDR=HOST` of Open MPI',
)


def check_launcher(launcher: str) -> None:
    """Refuse a launcher that has not started this process.

    Args:
        launcher (str): As on the command line, ``'none'`` for none.

    Raises:
        ValueError: If a variable is missing that it gives to its processes.
    """
    first = RANKS.get(launcher)
    # Whoever has brought the processes together needs no variables.
    if first is None or dist.is_initialized():
        return
    needed = (first, *_MORE.get(launcher, ()))
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher}: the environment has no {", ".join(missing)}, '
            'which tells each of the processes that this launcher starts who it is. '
            f'{_STARTS[launcher]}; see {documentation("cluster.md")}. For one process '
            'leave --launcher out.'
        )
