# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Signals and time limits: the step is finished, saved, and training goes on later."""

import gc
import os
import signal
import subprocess
import threading
import time
from multiprocessing import active_children

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.hooks import PreemptionHook
from mmfakd.engine.hooks import preemption_hook as module
from tests.helpers.tiny_runs import Recorder, run_config, student, train

SAVING = dict(type='mmfakd.SafeCheckpointHook')


class Sender(Hook):
    """Sends this process a signal at an iteration, or within a validation."""

    priority = 'NORMAL'

    def __init__(self, signum=signal.SIGTERM, at=None, in_val=None, times=1, skip=0):
        self.signum, self.at, self.in_val, self.times = signum, at, in_val, times
        # Batches of the validation before the one at which it is sent.
        self.skip = skip

    def send(self):
        for _ in range(self.times):
            os.kill(os.getpid(), self.signum)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            self.send()

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        # An iteration based loop stays in one epoch.
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if (runner.epoch if by_epoch else runner.iter) == self.in_val:
            self.skip -= 1
            if self.skip < 0:
                self.send()


class ToWorkers(Hook):
    """Somebody sends the data workers a signal."""

    def __init__(self):
        self.others = set(active_children())

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            workers = [str(p.pid) for p in set(active_children()) - self.others]
            assert len(workers) >= 2
            subprocess.run(['kill', '-TERM', *workers], check=True)


@pytest.fixture(autouse=True)
def own_signals(monkeypatch):
    """What a hook does to the process is undone."""
    kept = {
        s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    }
    monkeypatch.setattr(module.atexit, 'register', lambda function: None)
    yield
    for signum, handler in kept.items():
        signal.signal(signum, handler)
    gc.unfreeze()


def config(work_dir, checkpoint=SAVING, preemption=None, **cfg):
    result = run_config(work_dir, student(), epochs=3, checkpoint=checkpoint, **cfg)
    result.default_hooks.update(
        resume=dict(type='mmfakd.ResumeHook'),
        epoch_seed=dict(type='mmfakd.EpochSeedHook'),
        preemption=dict(type='mmfakd.PreemptionHook', **(preemption or {})),
    )
    return result


def preempted(cfg, *hooks):
    """Train until the hook ends it.

    Returns:
        The exit status.
    """
    with pytest.raises(SystemExit) as error:
        train(cfg, *hooks)
    return error.value.code


def resumed(work_dir, **cfg):
    recorder = Recorder()
    train(config(work_dir, **cfg, resume=True), recorder)
    return recorder


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Losses of a training that nobody interrupts."""
    recorder = Recorder()
    train(config(tmp_path_factory.mktemp('whole')), recorder)
    return recorder.losses


@pytest.mark.parametrize(
    ('signum', 'at'),
    [
        (signal.SIGTERM, 0),
        (signal.SIGTERM, 3),
        (signal.SIGTERM, 5),
        (signal.SIGUSR1, 2),
        (signal.SIGINT, 2),
    ],
)
def test_training_goes_on_where_a_signal_ended_it(signum, at, whole, tmp_path):
    status = preempted(config(tmp_path), Sender(signum, at))
    assert status == (130 if signum == signal.SIGINT else 75)
    assert (tmp_path / 'interrupted.pth').is_file()
    # The step was finished.
    assert resumed(tmp_path).losses == whole[at + 1 :]
    assert not (tmp_path / 'interrupted.pth').exists()


def test_within_a_validation(tmp_path, caplog):
    """Also where the epoch's checkpoint was not due."""
    rare = dict(SAVING, interval=2)
    reference = tmp_path / 'reference'
    expected = Recorder()
    train(config(reference, rare, validate=True), expected)
    run = tmp_path / 'run'
    hook = Sender(in_val=1)
    assert preempted(config(run, rare, validate=True), hook) == 75
    assert not (run / 'epoch_1.pth').exists()
    second = resumed(run, checkpoint=rare, validate=True)
    assert second.losses == expected.losses[2:]


@pytest.mark.parametrize(
    ('iters', 'ema', 'skip'),
    [
        (None, {}, 0),
        (6, {}, 0),
        # It validates twice; the second time is cut off.
        (None, dict(type='mmpretrain.EMAHook', evaluate_on_origin=True), 1),
    ],
)
def test_random_states_within_a_validation(iters, ema, skip, tmp_path):
    """Loading its images draws a number, and all of it is run again."""

    def make(work_dir, **kwargs):
        hooks = [dict(ema, momentum=0.5)] if ema else []
        cfg = config(work_dir, iters=iters, validate=True, hooks=hooks, **kwargs)
        # Nothing else gives an iteration based loop, or a plain config, other states.
        del cfg.default_hooks['epoch_seed']
        cfg.model.backbone.drop_path_rate = 0.5
        cfg.train_cfg.val_interval = 2 if iters else 1
        return cfg

    whole, first, second = Recorder(), Recorder(), Recorder()
    train(make(tmp_path / 'whole'), whole)
    sender = Sender(in_val=2 if iters else 1, skip=skip)
    assert preempted(make(tmp_path / 'run'), first, sender) == 75
    train(make(tmp_path / 'run', resume=True), second)
    assert len(first.losses) == 2
    assert first.losses + second.losses == whole.losses


@pytest.mark.parametrize('iters', [None, 20])
@pytest.mark.parametrize('persistent', [False, True])
def test_data_workers_are_shielded(persistent, iters, tmp_path):
    """In both kinds of loops."""
    cfg = config(tmp_path, iters=iters)
    cfg.train_dataloader.update(num_workers=2, persistent_workers=persistent)
    if iters:
        del cfg.default_hooks['epoch_seed']
    recorder = Recorder()
    train(cfg, ToWorkers(), recorder)
    assert len(recorder.losses) == (iters or 6)


@pytest.mark.parametrize(
    ('ema', 'skip'),
    [
        (dict(type='mmengine.EMAHook'), 0),
        (dict(type='mmpretrain.EMAHook'), 0),
        # It validates twice, at first with averaged weights.
        (dict(type='mmpretrain.EMAHook', evaluate_on_origin=True), 0),
        (dict(type='mmpretrain.EMAHook', evaluate_on_origin=True), 1),
        (dict(type='mmpretrain.EMAHook', evaluate_on_ema=False), 0),
    ],
)
def test_averaged_weights_stay_apart_from_trained_ones(ema, skip, tmp_path):
    def make(work_dir, **kwargs):
        hooks = [dict(ema, momentum=0.5)]
        return config(work_dir, validate=True, hooks=hooks, **kwargs)

    whole, first, second = Recorder(), Recorder(), Recorder()
    train(make(tmp_path / 'whole'), whole)
    assert preempted(make(tmp_path / 'run'), first, Sender(in_val=1, skip=skip)) == 75
    train(make(tmp_path / 'run', resume=True), second)
    assert first.losses + second.losses == whole.losses
    one, other = (
        load_checkpoint_file(tmp_path / name / 'epoch_3.pth')
        for name in ('whole', 'run')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert one[part].keys() == other[part].keys()
        for key, value in one[part].items():
            assert torch.equal(value, other[part][key]), (part, key)


def test_time_limit(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, '_START', time.monotonic() - 7200)
    cfg = config(tmp_path, preemption=dict(time_limit='2:00:00'))
    assert preempted(cfg) == 75
    # It is over before the first step: there is nothing to save.
    assert not list(tmp_path.glob('*.pth'))


def test_time_that_is_left(tmp_path, whole):
    recorder = Recorder()
    train(config(tmp_path, preemption=dict(time_limit='9-00:00:00')), recorder)
    assert recorder.losses == whole


@pytest.mark.parametrize(
    ('limit', 'seconds'),
    [(90, 90), (1.5, 1.5), ('90', 90), ('11:50:30', 42630), ('1-02:00:00', 93600)],
)
def test_forms_of_a_time_limit(limit, seconds):
    assert PreemptionHook(time_limit=limit).time_limit == seconds


@pytest.mark.parametrize('limit', ['12h', '10:00', '1:99:00', ''])
def test_time_limit_that_is_none(limit):
    with pytest.raises(ValueError, match='expected seconds, HH:MM:SS or D-HH:MM:SS'):
        PreemptionHook(time_limit=limit)


def test_signal_that_is_none():
    with pytest.raises(ValueError, match="no such signal; near names: .*'SIGUSR1'"):
        PreemptionHook(signals=['SIGUSR'])


def test_several_signals_at_once(tmp_path, whole):
    """As a launcher and a terminal together send them."""
    hook = Sender(signal.SIGINT, at=2, times=2)
    assert preempted(config(tmp_path), hook) == 130
    assert resumed(tmp_path).losses == whole[3:]


def test_handlers_are_restored(tmp_path):
    def before(*_): ...

    signal.signal(signal.SIGUSR1, before)
    train(config(tmp_path))
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


class Fail(Hook):
    """Ends a training by an error."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise ArithmeticError


def test_after_an_error_signals_are_not_swallowed(tmp_path):
    """As in a notebook, whose process goes on."""
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append('mine'))
    with pytest.raises(ArithmeticError):
        train(config(tmp_path), Fail())
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == ['mine', 'mine']
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(ArithmeticError):
        train(config(tmp_path), Fail())
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_the_next_training_restores_what_was_before_the_failed_one(tmp_path):
    def before(*_): ...

    signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ArithmeticError):
        train(config(tmp_path), Fail())
    assert signal.getsignal(signal.SIGUSR1) is not before
    train(config(tmp_path))
    assert signal.getsignal(signal.SIGUSR1) is before


@pytest.mark.parametrize('kind', ['CheckpointHook', None])
def test_without_a_hook_that_can_save_it_is_told(kind, tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks.checkpoint = kind and dict(type=kind, interval=1)
    with pytest.warns(UserWarning, match=f'checkpoints: {kind or "none"}. Only Safe'):
        assert preempted(cfg, Sender(at=1)) == 75
    assert not (tmp_path / 'interrupted.pth').exists()


def test_in_a_thread_there_is_the_time_limit_alone(tmp_path):
    warned = []

    def run():
        with pytest.warns(UserWarning, match='only the main thread'):
            train(config(tmp_path))
        warned.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert warned
