# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`tools/dist_train.sh` and `mmfakd train --nproc` with two gloo processes on CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests.helpers import forked
from tests.helpers.process_runs import environment, free_port
from tests.helpers.toy_detectors import detection_run, detector_distillation

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / 'configs/fakd/digits/fakd_review_r18w32_r18w4_1xb50_digits.py'


def succeeded(process):
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return process.stdout + process.stderr


def run(*command, cwd):
    process = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
    )
    return succeeded(process)


def run_alone(*words, cwd):
    """Run a Python program that starts no other."""
    return succeeded(forked.run(*words, cwd=cwd, env=environment()))


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """FAM-KD on 40 digits without augmentation, under a random teacher."""
    folder = tmp_path_factory.mktemp('distributed')
    init_default_scope('mmpretrain')
    base = Config.fromfile(CONFIG)
    torch.manual_seed(0)
    teacher = MODELS.build(base.model.teacher)
    torch.save(teacher.state_dict(), folder / 'teacher.pth')
    path = folder / 'config.py'
    path.write_text(
        f"""
_base_ = {str(CONFIG)!r}
custom_imports = dict(imports=['rank_hooks'])
custom_hooks = [
    dict(type='mmfakd.EpochSeedHook'),
    dict(type='mmfakd.StudentCheckpointHook'),
    dict(type='NormEval'),
    dict(type='SaveRank'),
]
train_dataloader = dict(batch_size=5, dataset=dict(times=1, dataset=dict(
    labels_per_class=4, pipeline=[dict(type='PackInputs')])))
train_cfg = dict(max_epochs=2)
val_cfg = val_dataloader = val_evaluator = None
model = dict(teacher_ckpt={str(folder / 'teacher.pth')!r})
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
"""
    )
    return path


@pytest.fixture(scope='module')
def single(config):
    """One process with the doubled batch."""
    work_dir = config.parent / 'single'
    run_alone(
        *(REPOSITORY / 'tools/train.py', config),
        *('--work-dir', work_dir, '--cfg-options', 'train_dataloader.batch_size=10'),
        cwd=config.parent,
    )
    return torch.load(work_dir / 'rank0.pth')


@pytest.fixture(scope='module')
def double(config):
    """Two processes."""
    work_dir = config.parent / 'double'
    log = run(
        *('bash', REPOSITORY / 'tools/dist_train.sh', config, 2),
        *('--work-dir', work_dir),
        cwd=config.parent,
    )
    assert 'find_unused_parameters=True' not in log
    return work_dir


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        # The order of summation differs, nothing else.
        torch.testing.assert_close(value, other[key], rtol=1e-4, atol=1e-5, msg=key)


def test_two_processes_equal_one_with_the_doubled_batch(single, double):
    assert_same(torch.load(double / 'rank0.pth'), single)


def test_command_trains_in_two_processes_as_the_script_does(config, double):
    work_dir = config.parent / 'command'
    run(
        *(sys.executable, '-m', 'mmfakd', 'train', '--max-restarts=0', config),
        *('--nproc', 2, '--work-dir', work_dir, '--master_port', free_port()),
        cwd=config.parent,
    )
    for rank in (0, 1):
        one, other = (torch.load(d / f'rank{rank}.pth') for d in (work_dir, double))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_command_trains_and_tests_a_config_by_its_name(config, tmp_path):
    """From any folder; what is written lies in one that is named after the config."""
    short = [
        'train_dataloader.batch_size=5',
        'train_dataloader.dataset.times=1',
        'train_dataloader.dataset.dataset.labels_per_class=2',
        'train_cfg.max_epochs=1',
    ]
    run_alone(
        *('-m', 'mmfakd', 'train', CONFIG.stem),
        *('--teacher-ckpt', config.parent / 'teacher.pth', '--cfg-options', *short),
        cwd=tmp_path,
    )
    work_dir = tmp_path / 'work_dirs' / CONFIG.stem
    for name in ('epoch_1.pth', 'epoch_1_student.pth'):
        assert (work_dir / name).is_file()
    # The script calls `mmfakd test --nproc`.
    log = run(
        *('bash', REPOSITORY / 'tools/dist_test.sh', CONFIG.stem),
        *(work_dir / 'epoch_1_student.pth', 2),
        *('--out', 'metrics.json', '--out-item', 'metrics'),
        cwd=tmp_path,
    )
    assert 'accuracy/top1' in log
    assert 'accuracy/top1' in json.loads((tmp_path / 'metrics.json').read_text())


def test_ranks_end_with_identical_weights(double):
    ranks = [torch.load(double / f'rank{rank}.pth') for rank in (0, 1)]
    assert ranks[0].keys() == ranks[1].keys()
    assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in ranks[0])


def test_training_moved_every_weight(config, double):
    """Else the comparisons above would hold for a training that does nothing."""
    start = torch.load(double / 'epoch_1.pth', weights_only=False)['state_dict']
    end = torch.load(double / 'epoch_2.pth', weights_only=False)['state_dict']
    still = [
        key
        for key, value in end.items()
        if value.is_floating_point()
        and 'running' not in key
        and torch.equal(value, start[key])
    ]
    assert still == []


def test_gradient_accumulation_equals_the_larger_batch(config, single):
    work_dir = config.parent / 'accumulated'
    run_alone(
        *(REPOSITORY / 'tools/train.py', config),
        *('--work-dir', work_dir),
        *('--cfg-options', 'optim_wrapper.accumulative_counts=2'),
        cwd=config.parent,
    )
    assert_same(torch.load(work_dir / 'rank0.pth'), single)


def test_resume_on_another_number_of_processes(config, double):
    work_dir = config.parent / 'resumed'
    log = run_alone(
        *(REPOSITORY / 'tools/train.py', config),
        *('--work-dir', work_dir, '--resume', double / 'epoch_1.pth'),
        cwd=config.parent,
    )
    assert 'resumed epoch: 1' in log
    assert (work_dir / 'epoch_2_student.pth').is_file()


@pytest.fixture(scope='module')
def detection_config(tmp_path_factory):
    """FAM-KD on the pyramid of a RetinaNet, images of several sizes a batch."""
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    folder = tmp_path_factory.mktemp('detection')
    cfg = detection_run(folder, detector_distillation())
    cfg.custom_imports = dict(imports=['rank_hooks', 'mmfakd'])
    cfg.custom_hooks = [dict(type='SaveRank')]
    for key in list(cfg):
        if key.startswith(('val_', 'test_')):
            cfg.pop(key)
    cfg.train_dataloader.dataset.pipeline[1] = dict(
        type='RandomChoiceResize', scales=[(128, 64), (64, 96)], keep_ratio=False
    )
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    cfg.train_cfg = dict(by_epoch=False, max_iters=3)
    checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    cfg.default_hooks = dict(checkpoint=checkpoint)
    cfg.optim_wrapper.optimizer.lr = 0.01
    cfg.dump(folder / 'config.py')
    return folder / 'config.py'


def test_detection_with_two_processes(detection_config):
    """Each step waits for the gradients of all parameters, none of them unused."""
    folder = detection_config.parent
    log = run(
        *('bash', REPOSITORY / 'tools/dist_train.sh', detection_config, 2),
        *('--work-dir', folder),
        cwd=folder,
    )
    assert 'find_unused_parameters=True' not in log
    ranks = [torch.load(folder / f'rank{rank}.pth') for rank in (0, 1)]
    start = torch.load(folder / 'iter_1.pth', weights_only=False)['state_dict']
    cfg = Config.fromfile(detection_config, import_custom_modules=False)
    model = MODELS.build(cfg.model)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sum(name.startswith('distiller.') for name in names) > 20
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in names)
    # Two steps more: only what moves by less than its last digit is as it was.
    moved = [name for name in names if not torch.equal(ranks[0][name], start[name])]
    assert len(moved) > 0.9 * len(names)
