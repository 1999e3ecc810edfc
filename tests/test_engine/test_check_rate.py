# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Warm-ups that last longer than the training."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmfakd.engine.check_rate import tell_rate
from tests.helpers.tiny_runs import run_config, student, train


def runner(*schedules, epochs=3, length=4, loop=EpochBasedTrainLoop):
    """What has the schedulers of a training of `epochs` epochs of `length` batches."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    built = []
    for schedule in schedules:
        converts = schedule.pop('convert_to_iter_based', False)
        kind = PARAM_SCHEDULERS.get(schedule.pop('type'))
        if converts:
            schedule['epoch_length'] = length
            built.append(kind.build_iter_from_epoch(optimizer, **schedule))
        else:
            built.append(kind(optimizer, **schedule))
    made = loop.__new__(loop)
    made._max_epochs, made._max_iters = epochs, epochs * length
    return SimpleNamespace(train_loop=made, param_schedulers=built)


@pytest.mark.parametrize(
    ('schedule', 'end', 'share'),
    [
        (
            dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
            '500 iterations, but the training has only 12',
            '0.023',
        ),
        (
            dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=5),
            '5 epochs, but the training has only 3',
            '0.55',
        ),
        (
            dict(type='LinearLR', start_factor=0.1, end=5, convert_to_iter_based=True),
            '20 iterations, but the training has only 12',
            '0.62',
        ),
        (
            dict(type='ConstantLR', factor=0.1, by_epoch=True, end=9),
            '9 epochs, but the training has only 3',
            '0.1',
        ),
    ],
)
def test_warm_ups_that_never_end(schedule, end, share):
    kind = schedule['type']
    (text,) = tell_rate(runner(dict(schedule)))
    assert f'({kind} of' in text and f'ends after {end}' in text
    assert f'comes to {share} times' in text


@pytest.mark.parametrize(
    'schedule',
    [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=12),
        dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=3),
        # It comes down, or is the whole schedule.
        dict(type='LinearLR', start_factor=1.0, end_factor=0.1, by_epoch=True, end=9),
        dict(type='CosineAnnealingLR', T_max=9, by_epoch=True),
        dict(type='MultiStepLR', milestones=[8, 11], by_epoch=True, end=12),
        dict(type='LinearMomentum', start_factor=0.1, by_epoch=True, end=9),
        # It never begins.
        dict(type='ConstantLR', factor=0.1, by_epoch=True, begin=5, end=9),
        # The rate drops, at the end or for good.
        dict(type='ConstantLR', factor=0.1, by_epoch=True, begin=2),
        dict(type='ConstantLR', factor=0.1, by_epoch=True, begin=2, end=9),
        dict(type='ConstantLR', factor=0.5, by_epoch=True),
    ],
)
def test_what_is_fine(schedule):
    assert tell_rate(runner(dict(schedule))) == []


def test_a_warm_up_without_an_end():
    (text,) = tell_rate(runner(dict(type='LinearLR', start_factor=0.1)))
    assert 'has no `end`, but the training has only 3 epochs' in text


def test_a_loop_of_no_known_length():
    given = runner(dict(type='LinearLR', start_factor=0.1, end=9))
    given.train_loop = SimpleNamespace(max_epochs=None)
    assert tell_rate(given) == []


def test_several_optimizers_and_none():
    given = runner(dict(type='ConstantLR', factor=0.1, by_epoch=True, end=9))
    given.param_schedulers = dict(one=given.param_schedulers, two=[])
    assert len(tell_rate(given)) == 1
    given.param_schedulers = None
    assert tell_rate(given) == []


def test_epochs_in_a_loop_of_iterations_are_told_elsewhere():
    schedule = dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=5)
    assert tell_rate(runner(schedule, loop=IterBasedTrainLoop)) == []


def test_a_training_tells_it(tmp_path):
    warmup = dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500)
    cfg = run_config(tmp_path, student(), epochs=1, param_scheduler=[warmup])
    cfg.default_hooks.learning_rate = dict(type='mmfakd.LearningRateHook')
    cfg.log_level = 'WARNING'
    train(cfg)
    (log,) = tmp_path.glob('*/*.log')
    assert 'ends after 500 iterations, but the training has only 2' in log.read_text()
