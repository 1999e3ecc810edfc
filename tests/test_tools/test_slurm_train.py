# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What `tools/slurm_train.sh` asks for, of an srun and sbatch that print."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools/slurm_train.sh'


@pytest.fixture
def ask(tmp_path):
    """A function that runs the script, and returns what srun or sbatch got."""
    for name in ('srun', 'sbatch'):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'

    def run(**variables):
        process = subprocess.run(
            ['bash', SCRIPT, 'gpu', 'job', 'config.py', 'folder', '--amp'],
            env=dict(PATH=path, **variables),
            capture_output=True,
            text=True,
            check=True,
        )
        return process.stdout.split()

    return run


@pytest.mark.parametrize(
    ('variables', 'tasks', 'of_a_node'),
    [
        ({}, 8, 8),
        ({'GPUS': '1'}, 1, 1),
        ({'GPUS': '2'}, 2, 2),
        ({'GPUS': '16'}, 16, 8),
        ({'GPUS': '4', 'GPUS_PER_NODE': '2'}, 4, 2),
        ({'GPUS': '2', 'BATCH': '1'}, 2, 2),
    ],
)
def test_no_more_gpus_than_are_asked_for(ask, variables, tasks, of_a_node):
    words = ask(**variables)
    assert words[0] == ('sbatch' if 'BATCH' in variables else 'srun')
    assert f'--ntasks={tasks}' in words
    assert f'--gres=gpu:{of_a_node}' in words
    assert f'--ntasks-per-node={of_a_node}' in words


def test_without_gpus(ask):
    words = ask(GPUS='3', GPUS_PER_NODE='0')
    assert '--ntasks=3' in words
    assert not [word for word in words if 'gpu:' in word or 'per-node' in word]
    assert words[-2:] == ['slurm', '--amp']
