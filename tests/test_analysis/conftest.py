# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Real trainings that several modules read, trained once."""

from pathlib import Path

import pytest

from mmfakd.analysis.read_run import read_run
from tests.helpers.compared_runs import seed, train_in
from tests.helpers.tiny_runs import (
    distillation,
    save_teacher,
    student,
)


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Two methods, two seeds, three epochs; the last run was resumed."""
    folder = tmp_path_factory.mktemp('runs')
    teacher = save_teacher(folder)
    for number in (0, 1):
        train_in(folder / f'alone_seed{number}', student(), epochs=3, **seed(number))
    train_in(folder / 'fam_seed0', distillation(teacher), epochs=3, **seed(0))
    fam = folder / 'fam_seed1'
    train_in(fam, distillation(teacher), epochs=2, **seed(1))
    resumed = dict(resume=True, load_from=str(fam / 'epoch_1.pth'))
    train_in(fam, distillation(teacher), epochs=3, **resumed, **seed(1))
    # Comparing needs no weights.
    Path(teacher).unlink()
    return folder


@pytest.fixture
def methods(folder):
    return {
        name: [read_run(folder / f'{name}_seed{number}') for number in (0, 1)]
        for name in ('alone', 'fam')
    }


@pytest.fixture
def run(folder):
    return read_run(folder / 'alone_seed0')
