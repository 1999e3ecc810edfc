# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Overflow that a loss scaler catches, with PyTorch's own on a CPU."""

import math

import pytest
import torch
from mmengine.hooks import Hook

from mmfakd.engine.hooks import CheckFiniteHook
from tests.helpers.cpu_scaler import needs_cpu_scaler
from tests.helpers.tiny_runs import Recorder, distillation, run_config, save_teacher
from tests.helpers.tiny_runs import train as train_tiny

pytestmark = needs_cpu_scaler


class Overflow(Hook):
    """Makes losses, gradients or statistics overflow in some iterations."""

    def __init__(self, what, iters):
        self.what, self.iters = what, set(iters)
        self.weights = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model, hit = runner.model, runner.iter in self.iters
        if self.what == 'loss':
            model.distiller.loss_weight = math.inf if hit else 1.0
        self.hook = model.architecture.head.fc.weight.register_hook(
            lambda g: g * (math.inf if hit and self.what == 'gradient' else 1)
        )
        if self.what == 'statistics' and hit:
            model.architecture.backbone.bn1.running_mean.fill_(math.inf)

    def after_train_iter(self, runner, *args, **kwargs):
        self.hook.remove()
        self.weights.append(runner.model.architecture.head.fc.weight.detach().clone())


def train(tmp_path, overflow, epochs=3, scale=1024.0, amp=True, **hook):
    cfg = run_config(tmp_path, distillation(save_teacher(tmp_path)), epochs=epochs)
    cfg.log_level = 'WARNING'
    cfg.custom_hooks = [dict(type='mmfakd.CheckFiniteHook', interval=2, **hook)]
    if amp:
        cfg.optim_wrapper.update(type='CpuAmpOptimWrapper', init_scale=scale)
    recorder = Recorder()
    return train_tiny(cfg, recorder, overflow), recorder


def test_gradients_that_overflow(tmp_path, capsys):
    overflow = Overflow('gradient', [2])
    runner, recorder = train(tmp_path, overflow)
    assert runner.iter == 6 and runner.optim_wrapper.loss_scaler.get_scale() == 512
    before, skipped, after = overflow.weights[1:4]
    assert torch.equal(skipped, before) and not torch.equal(after, skipped)
    assert all(math.isfinite(losses['loss']) for losses in recorder.losses)
    assert 'not finite' not in capsys.readouterr().out


def test_a_loss_that_overflows_now_and_then(tmp_path, capsys):
    overflow = Overflow('loss', [1, 2, 4])
    runner, recorder = train(tmp_path, overflow, max_skipped=2)
    assert runner.iter == 6 and runner.optim_wrapper.loss_scaler.get_scale() == 128
    bad = [not math.isfinite(losses['loss']) for losses in recorder.losses]
    assert bad == [False, True, True, False, True, False]
    assert torch.equal(overflow.weights[2], overflow.weights[0])
    said = capsys.readouterr().out
    assert (
        'The loss of 1 steps was not finite, the last at epoch 1, iteration 2' in said
    )
    assert (tmp_path / 'epoch_3.pth').exists()


def test_a_loss_that_goes_on_overflowing(tmp_path):
    overflow = Overflow('loss', range(1, 6))
    message = r'epoch 2, iteration 4 and 2 steps before: distill.loss_level0 = inf'
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path, overflow, max_skipped=2)
    assert (tmp_path / 'epoch_1.pth').exists()
    assert not (tmp_path / 'epoch_2.pth').exists()


def test_without_a_scaler_one_is_too_many(tmp_path):
    with pytest.raises(FloatingPointError, match='Loss not finite at epoch 1, iter'):
        train(tmp_path, Overflow('loss', [1]), amp=False)


def test_a_scaler_that_finds_no_scale(tmp_path):
    """NaN gradients of a finite loss: every step is skipped, for ever."""
    overflow = Overflow('gradient', range(9))
    with pytest.raises(
        FloatingPointError, match='scale of 3.1e-05.*nothing is learned'
    ):
        train(tmp_path, overflow, scale=2.0**-13)


def test_statistics_that_overflow(tmp_path):
    """Skipping a step does not take back what its forward pass wrote."""
    with pytest.raises(FloatingPointError, match='bn1.running_mean: .*bfloat16'):
        train(tmp_path, Overflow('statistics', [2]))


def test_bad_number():
    with pytest.raises(ValueError, match='max_skipped=-1'):
        CheckFiniteHook(max_skipped=-1)
