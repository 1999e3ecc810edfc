# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`tools/train.py`, `tools/test.py` and the converter, as a user calls them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests.helpers import forked

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / 'configs/fakd/digits'
FAM = CONFIGS / 'fakd_review_r18w32_r18w4_1xb50_digits.py'
CLASSIFY = REPOSITORY / 'demo/classify_with_mmpretrain.py'
SHORT = [
    'train_dataloader.batch_size=10',
    'train_dataloader.dataset.times=1',
    'train_dataloader.dataset.dataset.labels_per_class=3',
    'train_cfg.max_epochs=2',
]


def run(script, *arguments, cwd, check=True):
    process = forked.run(REPOSITORY / script, *arguments, cwd=cwd)
    if check:
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A short FAM-KD run whose teacher's file is gone afterwards."""
    folder = tmp_path_factory.mktemp('trained')
    init_default_scope('mmpretrain')
    teacher = MODELS.build(Config.fromfile(FAM).model.teacher)
    torch.save(teacher.state_dict(), folder / 'teacher.pth')
    arguments = ['--work-dir', 'run', '--teacher-ckpt', 'teacher.pth', '--seed', '7']
    run('tools/train.py', FAM, *arguments, '--cfg-options', *SHORT, cwd=folder)
    shutil.move(folder / 'teacher.pth', folder / 'moved.pth')
    return folder


def accuracy(process):
    [line] = [line for line in process.stdout.splitlines() if 'Epoch(test)' in line]
    return float(line.split('accuracy/top1:')[1].split()[0])


def test_checkpoint_holds_no_teacher(trained):
    checkpoint = torch.load(trained / 'run' / 'epoch_2.pth', weights_only=False)
    keys = checkpoint['state_dict'].keys()
    assert not any('teacher' in key for key in keys)
    assert {key.split('.')[0] for key in keys} == {'architecture', 'distiller'}
    [group] = checkpoint['optimizer']['param_groups']
    init_default_scope('mmpretrain')
    model = MODELS.build(Config.fromfile(FAM).model)
    assert len(group['params']) == len(list(model.parameters()))


def test_seed_reaches_the_run(trained):
    [config] = (trained / 'run').glob('*.py')
    assert Config.fromfile(config).randomness.seed == 7


def test_student_is_evaluated_without_the_teacher_s_file(trained):
    """By the checkpoint, and by the plain student file: the same score."""
    files = ['epoch_2.pth', 'epoch_2_student.pth']
    scores = [
        accuracy(run('tools/test.py', FAM, trained / 'run' / file, cwd=trained))
        for file in files
    ]
    assert scores[0] == scores[1]
    rows = next((trained / 'run').glob('*/vis_data/scalars.json')).read_text()
    last = [json.loads(row) for row in rows.splitlines()][-1]
    assert scores[0] == pytest.approx(last['accuracy/top1'], abs=1e-3)


def test_metrics_are_written(trained):
    arguments = ['--out', 'metrics.json', '--out-item', 'metrics']
    run('tools/test.py', FAM, trained / 'run' / 'epoch_2.pth', *arguments, cwd=trained)
    assert 'accuracy/top1' in json.loads((trained / 'metrics.json').read_text())


def test_resume_without_the_teacher_s_file(trained):
    arguments = ['--work-dir', 'run', '--teacher-ckpt', 'teacher.pth', '--resume']
    process = run('tools/train.py', FAM, *arguments, cwd=trained, check=False)
    assert process.returncode != 0
    assert "'teacher.pth'" in process.stderr and 'FileNotFoundError' in process.stderr
    assert (trained / 'run' / 'epoch_2.pth').is_file()


def test_export_and_stock_load(trained):
    """The stock student, strictly, in a process without mmfakd."""
    arguments = [trained / 'run' / 'epoch_2.pth', 'student.pth']
    run(
        'tools/export_student.py',
        *(*arguments, '--config-out', 'student.py'),
        cwd=trained,
    )
    refused = run('tools/export_student.py', *arguments, cwd=trained, check=False)
    assert refused.returncode != 0 and '--force' in refused.stderr
    # One that has not even imported it.
    process = subprocess.run(
        [sys.executable, CLASSIFY, 'student.pth'],
        cwd=trained,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert 'loaded with strict=True' in process.stdout


def test_export_of_a_plain_checkpoint_is_refused(trained):
    process = run(
        'tools/export_student.py',
        *('moved.pth', 'nothing.pth'),
        cwd=trained,
        check=False,
    )
    assert process.returncode != 0
    assert "No key begins with 'architecture.'" in process.stderr
    assert not (trained / 'nothing.pth').exists()


def test_plot(trained):
    run(
        'tools/plot_frequency_attention.py',
        *(FAM, trained / 'run' / 'epoch_2.pth', 'picture.png'),
        *('--teacher-ckpt', 'moved.pth'),
        cwd=trained,
    )
    assert (trained / 'picture.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--teacher-ckpt', 'x.pth'], 'has no teacher'),
        (['--cfg-options', 'auto_scale_lr=None', '--auto-scale-lr'], 'base_batch_size'),
    ],
)
def test_options_that_do_not_fit(arguments, message, tmp_path):
    student = CONFIGS / 'r18w4_1xb50_digits.py'
    process = run('tools/train.py', student, *arguments, cwd=tmp_path, check=False)
    assert process.returncode != 0 and message in process.stderr
