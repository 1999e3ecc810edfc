# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is learned is shown at an interval, and the training does not notice."""

import copy
import json
import os
import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmfakd.engine.hooks import LearningPicturesHook
from tests.helpers.host_sync import no_synchronisation
from tests.helpers.tiny_runs import (
    Recorder,
    distillation,
    run_config,
    save_teacher,
    student,
    train,
)
from tests.helpers.two_processes import run_twice

BANDS = ('low', 'middle', 'high')


def config(folder, teacher_ckpt, pictures=None, **kwargs):
    """A run with dropout, augmentation and validation, with the hook or without."""
    model = distillation(teacher_ckpt)
    model['architecture']['backbone']['drop_path_rate'] = 0.2
    hooks = [] if pictures is None else [dict(pictures, type=HOOK)]
    return run_config(folder, model, hooks=hooks, validate=True, **kwargs)


HOOK = 'mmfakd.LearningPicturesHook'


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp('teacher'))


def looks(work_dir):
    """Iteration -> numbers, of all logs of a work dir."""
    rows = [
        json.loads(line)
        for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    return {
        row['step']: {k: v for k, v in row.items() if k.startswith('learning/')}
        for row in rows
        if any(key.startswith('learning/') for key in row)
    }


def states():
    return random.random(), np.random.rand(), torch.rand(()).item()


def record(cfg):
    recorder = Recorder()
    runner = train(cfg, recorder)
    return recorder, runner.model.state_dict(), states()


@pytest.mark.parametrize(
    ('loop', 'pictures'),
    [
        # Every iteration is looked at.
        (dict(epochs=2), dict(interval=1)),
        (dict(iters=2), dict(images=True)),
    ],
    ids=['epochs', 'iters'],
)
def test_the_training_is_the_same_bit_for_bit(tmp_path, teacher, loop, pictures):
    cfg = config(tmp_path / 'without', teacher, **loop)
    plain, weights, drawn = record(cfg)
    shown, weights_too, drawn_too = record(
        config(tmp_path / 'with', teacher, pictures, **loop)
    )
    assert shown.losses == plain.losses and len(plain.losses) >= 2
    assert all(map(torch.equal, shown.batches, plain.batches))
    assert all(torch.equal(weights_too[key], value) for key, value in weights.items())
    assert drawn_too == drawn
    assert list(looks(tmp_path / 'with')) == [*range(1, len(plain.losses) + 1)]


@pytest.fixture(scope='module')
def shown(tmp_path_factory, teacher):
    """A training of two iterations, both looked at, and TensorBoard."""
    folder = tmp_path_factory.mktemp('shown')
    pictures = dict(images=True, samples=1)
    backends = [dict(type='LocalVisBackend')]
    try:
        import torch.utils.tensorboard  # noqa: F401

        backends.append(dict(type='TensorboardVisBackend'))
    except ImportError:
        pass
    cfg = config(folder, teacher, pictures, epochs=1)
    cfg.default_hooks.first_step = dict(type='mmfakd.FirstStepHook')
    cfg.visualizer = dict(type='Visualizer', vis_backends=backends)
    train(cfg)
    return folder


def test_numbers_are_those_of_the_step_and_of_the_images(shown):
    folder = shown
    found = looks(folder)
    assert list(found) == [1, 2]
    names = {key.split('/')[1] for key in found[2]}
    assert names == {*(f'loss_level{i}' for i in range(4)), 'total'}
    level = {k.split('/')[2] for k in found[2] if '/loss_level0/' in k}
    assert level == {
        *('loss', 'share', 'ratio', 'reached'),
        *(
            f'{what}_{band}'
            for what in ('student', 'prediction', 'teacher', 'gap', 'filter')
            for band in BANDS
        ),
    }
    # A pooled feature has its mean alone, and no filter.
    pooled = {k.split('/')[2] for k in found[2] if '/loss_level3/' in k}
    assert {'gap_low', 'teacher_low'} <= pooled
    assert not {'gap_high', 'filter_low'} & pooled
    first = json.loads((folder / 'distillation.json').read_text())
    for row in first['levels']:
        ratio = found[1][f'learning/{row["name"]}/ratio']
        assert ratio == pytest.approx(row['ratio'])
    # The teacher does not move; the student does.
    key = 'learning/loss_level0/{}_middle'
    teacher, prediction = (
        [look[key.format(x)] for look in found.values()]
        for x in ('teacher', 'prediction')
    )
    assert len(set(teacher)) == 1 and len(set(prediction)) == 2


def test_pictures_are_drawn(shown):
    folder = shown
    [drawn] = folder.glob('*/vis_data/vis_image')
    kinds = ('filters', 'spectra', 'gaps', 'attention')
    assert sorted(path.name for path in drawn.iterdir()) == sorted(
        f'learning_{kind}_{step}.png' for kind in kinds for step in (1, 2)
    )
    picture = cv2.imread(str(drawn / 'learning_filters_2.png'))
    # Something is on it, and other things than before.
    assert picture.std() > 10
    assert (picture != cv2.imread(str(drawn / 'learning_filters_1.png'))).any()


def test_tensorboard_has_the_same(shown):
    module = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    folder = shown
    [path] = folder.glob('*/vis_data/events.out.*')
    events = module.EventAccumulator(str(path), size_guidance=dict(images=0))
    events.Reload()
    for step, look in looks(folder).items():
        for key, value in look.items():
            [there] = [e.value for e in events.Scalars(key) if e.step == step]
            assert there == pytest.approx(value, rel=1e-6)
    assert [e.step for e in events.Images('learning_attention')] == [1, 2]


def test_a_resumed_training_goes_on_with_its_looks(tmp_path, teacher):
    pictures = dict(interval=3)
    whole = Recorder()
    cfg = config(tmp_path / 'whole', teacher, pictures, epochs=3)
    cfg.default_hooks.epoch_seed = dict(type='mmfakd.EpochSeedHook')
    train(copy.deepcopy(cfg), whole)
    cfg.work_dir = str(tmp_path / 'parts')
    train(copy.deepcopy(cfg), Recorder(stop_after=2))
    cfg.resume, cfg.load_from = True, str(tmp_path / 'parts/epoch_2.pth')
    rest = Recorder()
    train(cfg, rest)
    assert rest.losses == whole.losses[4:]
    parts = looks(tmp_path / 'parts')
    # The first iteration of what goes on is not that of a training.
    assert list(parts) == [1, 3, 6]
    assert parts == looks(tmp_path / 'whole')


def test_it_waits_for_nothing_between_the_looks(tmp_path, teacher):
    cfg = config(tmp_path, teacher, dict(interval=100), epochs=1)
    runner = train(cfg)
    [hook] = [h for h in runner.hooks if isinstance(h, LearningPicturesHook)]
    runner.train_loop._iter = 7
    with no_synchronisation():
        hook.before_train_iter(runner, 0)
        hook.after_train_iter(runner, 0)
    assert runner.model.measured is not None
    # Only a look would do so.
    runner.train_loop._iter = 99
    with pytest.raises(AssertionError), no_synchronisation():
        hook.after_train_iter(runner, 0)


def two_processes(rank, folder, teacher):
    """Train with and without the hook; the first process alone writes."""
    os.environ['LOCAL_RANK'] = str(rank)
    trained = []
    for name, pictures in (('without', None), ('with', dict(interval=2))):
        cfg = config(f'{folder}/{name}', teacher, pictures, epochs=2)
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
        )
        recorder = Recorder()
        runner = train(cfg, recorder)
        trained.append((recorder.losses, runner.model.state_dict()))
        hooks = [h for h in runner.hooks if isinstance(h, LearningPicturesHook)]
        assert all((h._fixed is not None) == (rank == 0) for h in hooks)
    (plain, weights), (shown, weights_too) = trained
    assert shown == plain and len(plain) == 2
    assert all(torch.equal(weights_too[key], value) for key, value in weights.items())


def test_two_processes(tmp_path, teacher):
    run_twice(two_processes, tmp_path, teacher)
    assert list(looks(tmp_path / 'with')) == [1, 2]


def test_images_of_another_size_are_told(tmp_path, teacher):
    cfg = config(tmp_path, teacher, dict(), epochs=1)
    resize = dict(type='Resize', scale=12)
    cfg.val_dataloader.dataset.pipeline.insert(0, resize)
    match = "LearningPicturesHook: its images, of the val set.*split='train'"
    with pytest.raises(ValueError, match=match):
        train(cfg)
    cfg.custom_hooks[0].split = 'train'
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    train(cfg)
    assert list(looks(tmp_path)) == [1, 2]


def test_models_that_distil_nothing_are_refused(tmp_path):
    cfg = run_config(tmp_path, student(), hooks=[dict(type=HOOK)])
    with pytest.raises(TypeError, match='expected a mmfakd.FeatureDistill'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize(
    'wrong', [dict(interval=0), dict(samples=2.5), dict(split='test')]
)
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}='):
        LearningPicturesHook(**wrong)
