# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The rate of a resumed training: the checkpoint's, or a new one."""

import pytest
import torch

from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.launch import merge_train_options
from tests.helpers.tiny_runs import Recorder, run_config, student, train

SCHEDULE = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
    dict(type='CosineAnnealingLR', begin=3, end=8, eta_min=0.001, by_epoch=False),
]


class Rates(Recorder):
    """Rates of all parameters in each iteration."""

    def __init__(self, stop_after=None):
        super().__init__(stop_after)
        self.rates = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append([g['lr'] for g in runner.optim_wrapper.param_groups])


def run(work_dir, lr=None, stop_after=None, options=None, **kwargs):
    """Train, by the options of the command; return the rates and the runner."""
    kwargs.setdefault('param_scheduler', SCHEDULE)
    cfg = run_config(work_dir, student(), epochs=4, **kwargs)
    cfg.default_hooks.learning_rate = dict(type='mmfakd.LearningRateHook')
    cfg.optim_wrapper.paramwise_cfg = dict(bias_lr_mult=2.0)
    merge_train_options(cfg, work_dir=str(work_dir), lr=lr, **(options or {}))
    rates = Rates(stop_after)
    runner = train(cfg, rates)
    return rates.rates, runner


ONE_CYCLE = [dict(type='OneCycleLR', eta_max=0.3, total_steps=8, by_epoch=False)]


def test_one_cycle(tmp_path):
    """Its state has a function, which a checkpoint must not hold."""
    schedule = dict(param_scheduler=ONE_CYCLE)
    fresh, _ = run(tmp_path / 'fresh', lr=0.01, **schedule)
    run(tmp_path / 'old', stop_after=2, **schedule)
    options = dict(resume=str(tmp_path / 'old' / 'epoch_2.pth'))
    resumed, _ = run(tmp_path / 'new', lr=0.01, options=options, **schedule)
    torch.testing.assert_close(torch.tensor(resumed), torch.tensor(fresh[4:]))


def test_new_rate_gives_the_schedule_that_began_with_it(tmp_path, lines):
    fresh, _ = run(tmp_path / 'fresh', lr=0.01)
    run(tmp_path / 'old', stop_after=2)
    checkpoint = str(tmp_path / 'old' / 'epoch_2.pth')
    lines.clear()
    resumed, _ = run(tmp_path / 'new', lr=0.01, options=dict(resume=checkpoint))
    assert len(fresh) == 8 and len(resumed) == 4
    for new, old in zip(resumed, fresh[4:]):
        assert new == pytest.approx(old)
    text = (
        'The learning rate that schedules start from is 0.01 now, 0.2 times the '
        "checkpoint's 0.05; all of its schedule changes likewise."
    )
    assert text in lines
    assert not any('stay in force' in line for line in lines)
    entry = load_checkpoint_file(tmp_path / 'new' / 'epoch_4.pth')['meta']['mmfakd']
    kinds = {'': ['LinearLR', 'CosineAnnealingLR']}
    assert entry == dict(lr=pytest.approx(0.01), lr_scale=1.0, schedulers=kinds)
    # A job that is started again with the same options changes nothing more.
    again = str(tmp_path / 'new' / 'epoch_3.pth')
    lines.clear()
    resumed, _ = run(tmp_path / 'again', lr=0.01, options=dict(resume=again))
    assert resumed[0] == pytest.approx(fresh[6])
    assert not any('times the checkpoint' in line for line in lines)


def test_other_settings_are_told(tmp_path, lines):
    uninterrupted, _ = run(tmp_path / 'whole')
    run(tmp_path / 'old', stop_after=2)
    checkpoint = str(tmp_path / 'old' / 'epoch_2.pth')
    lines.clear()
    resumed, runner = run(
        tmp_path / 'new',
        options=dict(resume=checkpoint),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.2, momentum=0.5, weight_decay=0.1)
        ),
        param_scheduler=[SCHEDULE[0], dict(SCHEDULE[1], end=9, eta_min=0.002)],
    )
    assert resumed == uninterrupted[4:]
    assert runner.optim_wrapper.param_groups[0]['momentum'] == 0.9
    (text,) = [line for line in lines if 'stay in force' in line]
    rows = [line.split() for line in text.splitlines()[2:-1]]
    assert rows == [
        ['optimizer.lr', '0.05', '0.2'],
        ['optimizer.momentum', '0.9', '0.5'],
        ['optimizer.weight_decay', '0', '0.1'],
        ['param_scheduler.1.T_max', '5', '6'],
        ['param_scheduler.1.eta_min', '0.001', '0.002'],
        ['param_scheduler.1.end', '8', '9'],
    ]
    assert 'Give the learning rate as --lr' in text


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    """Path of a checkpoint with two schedulers."""
    folder = tmp_path_factory.mktemp('stopped')
    run(folder, stop_after=2)
    return folder / 'epoch_2.pth'


MULTI_STEP = dict(type='MultiStepLR', milestones=[3], by_epoch=True)


@pytest.mark.parametrize(
    ('schedule', 'now'),
    [
        (SCHEDULE[1:], r'1 schedulers \(CosineAnnealingLR\)'),
        ([*SCHEDULE, MULTI_STEP], r'3 schedulers \(Lin.*, Cos.*, MultiStepLR\)'),
        ([SCHEDULE[0], MULTI_STEP], r'2 schedulers \(LinearLR, MultiStepLR\)'),
        (None, '0 schedulers'),
    ],
)
@pytest.mark.parametrize('named', [True, False])
def test_another_schedule(named, schedule, now, stopped, tmp_path):
    """Of a checkpoint that names its schedulers, and of one that does not."""
    path = stopped
    then = r'\(LinearLR, CosineAnnealingLR\)'
    if not named:
        checkpoint = load_checkpoint_file(stopped)
        del checkpoint['meta']['mmfakd']['schedulers']
        path = tmp_path / 'unnamed.pth'
        torch.save(checkpoint, path)
        then = r'\(one with end_factor and start_factor and .*, one with T_max and eta'
    match = rf'has 2 schedulers {then}.*of the config has {now}.*load_from='
    with pytest.raises(ValueError, match=match):
        run(tmp_path, options=dict(resume=str(path)), param_scheduler=schedule)


def test_one_cycle_is_known_without_its_name(tmp_path):
    schedule = dict(param_scheduler=ONE_CYCLE)
    whole, _ = run(tmp_path / 'whole', **schedule)
    checkpoint = load_checkpoint_file(tmp_path / 'whole' / 'epoch_2.pth')
    del checkpoint['meta']['mmfakd']
    torch.save(checkpoint, tmp_path / 'unnamed.pth')
    options = dict(resume=str(tmp_path / 'unnamed.pth'))
    resumed, _ = run(tmp_path / 'new', options=options, **schedule)
    assert resumed == whole[4:]


def test_nothing_is_told_where_nothing_differs(tmp_path, lines):
    run(tmp_path / 'old', stop_after=2)
    checkpoint = str(tmp_path / 'old' / 'epoch_2.pth')
    lines.clear()
    run(tmp_path / 'new', options=dict(resume=checkpoint))
    assert not any('stay in force' in line for line in lines)


@pytest.mark.parametrize('before', [False, True])
def test_scaling_by_the_batch(before, tmp_path, lines):
    """Switched on for the resumed run, or with another batch than before."""
    scaling = dict(auto_scale_lr=dict(enable=before, base_batch_size=20))
    run(tmp_path / 'old', stop_after=2, **scaling)
    checkpoint = str(tmp_path / 'old' / 'epoch_2.pth')
    entry = load_checkpoint_file(checkpoint)['meta']['mmfakd']
    assert entry['lr'] == (0.025 if before else 0.05)
    assert entry['lr_scale'] == (0.5 if before else 1.0)
    options = dict(resume=checkpoint, auto_scale_lr=True)
    if before:
        options['cfg_options'] = ['auto_scale_lr.base_batch_size=5']
    lines.clear()
    run(tmp_path / 'new', options=options, **scaling)
    entry = load_checkpoint_file(tmp_path / 'new' / 'epoch_3.pth')['meta']['mmfakd']
    assert entry['lr'] == pytest.approx(0.1 if before else 0.025)
    assert any('times the checkpoint' in line for line in lines)


def test_unknown_batch(tmp_path, lines):
    scaling = dict(auto_scale_lr=dict(enable=True, base_batch_size=20))
    run(tmp_path / 'old', stop_after=2, **scaling)
    checkpoint = tmp_path / 'old' / 'epoch_2.pth'
    content = load_checkpoint_file(checkpoint)
    del content['meta']['mmfakd']
    torch.save(content, checkpoint)
    lines.clear()
    run(tmp_path / 'new', options=dict(resume=str(checkpoint)), **scaling)
    assert any('does not say for which total batch' in line for line in lines)
