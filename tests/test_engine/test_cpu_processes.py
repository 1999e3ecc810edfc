# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Several processes without a GPU; one stands for them here."""

import os

import pytest
from mmengine.config import Config

from mmfakd.engine import cpu_processes
from mmfakd.engine.cpu_processes import init_cpu_distributed


@pytest.mark.parametrize('launcher', [None, 'none', 'slurm', 'mpi'])
def test_other_launchers_change_nothing(launcher):
    given = dict(model=dict(type='M'), model_wrapper_cfg=dict(type='W'))
    if launcher:
        given['launcher'] = launcher
    cfg = Config(dict(given))
    init_cpu_distributed(cfg)
    assert cfg.to_dict() == given


def test_a_gpu_changes_nothing(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    cfg = Config(dict(launcher='pytorch'))
    init_cpu_distributed(cfg)
    assert cfg.to_dict() == dict(launcher='pytorch')


def test_wrapper_and_process_group(run_python, monkeypatch):
    """In a process of its own, with the environment of torch's launcher."""
    for name, value in dict(
        RANK=0, WORLD_SIZE=1, LOCAL_WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=0
    ).items():
        monkeypatch.setenv(name, str(value))
    # Whatever machine this is.
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    run_python("""
import os
import torch, torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS
from mmfakd.engine.cpu_processes import init_cpu_distributed

cfg = Config(dict(launcher='pytorch'))
init_cpu_distributed(cfg)
assert dist.is_initialized() and dist.get_backend() == 'gloo'
assert cfg.model_wrapper_cfg == dict(
    type='MMDistributedDataParallel', broadcast_buffers=False,
    find_unused_parameters=False, device_ids=None,
), cfg.model_wrapper_cfg
assert torch.get_num_threads() == os.cpu_count(), torch.get_num_threads()

# Again, as a runner in the same process would; what the config asks for is kept.
cfg = Config(dict(
    launcher='pytorch', find_unused_parameters=True,
    model_wrapper_cfg=dict(broadcast_buffers=True, device_ids=[0]),
))
os.environ['LOCAL_WORLD_SIZE'] = str(2 * os.cpu_count())
init_cpu_distributed(cfg)
wrapper = cfg.model_wrapper_cfg
assert wrapper.broadcast_buffers and wrapper.find_unused_parameters
assert wrapper.device_ids is None
assert torch.get_num_threads() == 1

# MMEngine builds it.
from mmengine.model import BaseModel
class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def forward(self, *args): ...
MODEL_WRAPPERS.build(wrapper, default_args=dict(module=Model()))
dist.destroy_process_group()
""")


def test_threads_that_the_user_chose_are_kept(run_python, monkeypatch):
    for name, value in dict(
        RANK=0,
        WORLD_SIZE=1,
        LOCAL_WORLD_SIZE=9999,
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=0,
        OMP_NUM_THREADS=2,
        CUDA_VISIBLE_DEVICES='',
    ).items():
        monkeypatch.setenv(name, str(value))
    run_python("""
import torch
from mmengine.config import Config
from mmfakd.engine.cpu_processes import init_cpu_distributed
before = torch.get_num_threads()
init_cpu_distributed(Config(dict(launcher='pytorch')))
assert torch.get_num_threads() == before == 2
""")


def test_processes_of_slurm(run_python, monkeypatch, tmp_path):
    """What Slurm says becomes what torch wants to know."""
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames h[1-2]" ] && echo localhost'
    )
    scontrol.chmod(0o755)
    for name, value in dict(
        SLURM_PROCID=0,
        SLURM_LOCALID=0,
        SLURM_NTASKS=1,
        SLURM_NODELIST='h[1-2]',
        SLURM_TASKS_PER_NODE='1(x2)',
        MASTER_PORT=0,
        CUDA_VISIBLE_DEVICES='',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
    ).items():
        monkeypatch.setenv(name, str(value))
    for name in ('MASTER_ADDR', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    run_python("""
import os
import torch.distributed as dist
from mmengine.config import Config
from mmfakd.engine.cpu_processes import init_cpu_distributed

cfg = Config(dict(launcher='slurm'))
init_cpu_distributed(cfg)
assert dist.get_backend() == 'gloo' and dist.get_world_size() == 1
assert os.environ['MASTER_ADDR'] == 'localhost'
assert os.environ['LOCAL_WORLD_SIZE'] == '1' and os.environ['LOCAL_RANK'] == '0'
assert cfg.model_wrapper_cfg.device_ids is None
dist.destroy_process_group()
""")


@pytest.mark.parametrize(
    ('tasks', 'node', 'expected'),
    [('2(x3)', 2, '2'), ('4,3', 0, '4'), ('4,3', 1, '3'), ('4(x2),3', 2, '3')],
)
def test_tasks_of_one_machine(tasks, node, expected):
    assert cpu_processes._own_tasks(tasks, str(node)) == expected


def test_processes_of_mpi(run_python, monkeypatch):
    for name, value in dict(
        OMPI_COMM_WORLD_RANK=0,
        OMPI_COMM_WORLD_SIZE=1,
        OMPI_COMM_WORLD_LOCAL_RANK=0,
        OMPI_COMM_WORLD_LOCAL_SIZE=9999,
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=0,
        CUDA_VISIBLE_DEVICES='',
    ).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    run_python("""
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmfakd.engine.cpu_processes import init_cpu_distributed

cfg = Config(dict(launcher='mpi'))
init_cpu_distributed(cfg)
assert dist.get_backend() == 'gloo' and dist.get_world_size() == 1
assert cfg.model_wrapper_cfg.device_ids is None
assert torch.get_num_threads() == 1
dist.destroy_process_group()
""")
