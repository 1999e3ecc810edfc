# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A launcher that has started no processes is told as what it is."""

import pytest
import torch.distributed as dist

from mmfakd.engine.launchers import check_launcher

NEEDED = dict(
    pytorch=('RANK',),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS'),
    mpi=(
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_LOCAL_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'MASTER_ADDR',
    ),
)
STARTS = dict(pytorch='--nproc 8', slurm='srun', mpi='mpirun -np 8')


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for names in NEEDED.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize('launcher', NEEDED)
def test_variables_that_are_missing(launcher, monkeypatch):
    names = NEEDED[launcher]
    said = f'--launcher {launcher}: .* no {", ".join(names)}, .*{STARTS[launcher]}'
    with pytest.raises(ValueError, match=said):
        check_launcher(launcher)
    for name in names[:-1]:
        monkeypatch.setenv(name, '0')
    with pytest.raises(ValueError, match=f'has no {names[-1]}, which'):
        check_launcher(launcher)
    monkeypatch.setenv(names[-1], '1')
    check_launcher(launcher)


def test_one_process_needs_none():
    check_launcher('none')


@pytest.mark.parametrize('launcher', NEEDED)
def test_processes_that_have_met_are_left_alone(launcher, monkeypatch):
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    check_launcher(launcher)
