# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A diverged model stops the run and costs no checkpoint."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.engine.hooks import CheckFiniteHook
from mmfakd.engine.hooks.check_finite_hook import _not_finite
from tests.helpers.tiny_runs import distillation, run_config, student, train

# Only the shallow level of the review depends on it, so only its loss diverges.
SHALLOW = 'distiller.connectors.review.levels.0.norm.bias'


class Diverge(Hook):
    """Set a parameter to NaN before or after a training step, counted from 1."""

    priority = 'NORMAL'

    def __init__(self, name, step, after=False, value=float('nan')):
        self.name, self.step, self.after, self.value = name, step, after, value

    def _diverge(self, runner, after):
        if after == self.after and runner.iter + 1 == self.step:
            runner.model.get_parameter(self.name).data.view(-1)[0] = self.value

    def before_train_iter(self, runner, *args, **kwargs):
        self._diverge(runner, after=False)

    def after_train_iter(self, runner, *args, **kwargs):
        self._diverge(runner, after=True)


class Snapshot(Hook):
    """Remembers the files of the work dir as they were before one step."""

    priority = 'VERY_HIGH'

    def __init__(self, step):
        self.step, self.files = step, None

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.step:
            self.files = files(runner.work_dir)


def files(work_dir):
    return {path.name: path.read_bytes() for path in Path(work_dir).glob('*.pth')}


def diverge(work_dir, model, step, name=SHALLOW, interval=50, after=False, **kwargs):
    """Train into the divergence.

    Returns:
        The message, and the files of before the diverged step.
    """
    hooks = [
        dict(type='mmfakd.CheckFiniteHook', interval=interval),
        dict(type='mmfakd.StudentCheckpointHook'),
    ]
    snapshot = Snapshot(step)
    with pytest.raises(FloatingPointError) as error:
        train(
            run_config(work_dir, model, hooks=hooks, **kwargs),
            snapshot,
            Diverge(name, step, after),
        )
    return str(error.value), snapshot.files


@pytest.mark.parametrize('interval', [1, 4, 50])
def test_level_that_diverged_first_is_named(interval, work_dir, teacher_ckpt):
    """Whenever the check comes: at once, or two iterations later, when all are NaN."""
    message, _ = diverge(
        work_dir, distillation(teacher_ckpt), step=3, interval=interval, iters=6
    )
    assert message.startswith(
        'Loss not finite at epoch 1, iteration 3: distill.loss_level0 = nan. '
    )
    for other in ('loss_level1', 'student.loss', ' loss ='):
        assert other not in message
    assert 'Resume from the last one' in message


@pytest.mark.parametrize('step', [3, 4])
def test_no_checkpoint_by_epochs_is_lost(step, work_dir, teacher_ckpt):
    """The interval is far off: the check comes with the end of the epoch."""
    message, before = diverge(
        work_dir,
        distillation(teacher_ckpt),
        step=step,
        checkpoint=dict(max_keep_ckpts=1, save_best='score', rule='greater'),
        validate=True,
        val_evaluator=dict(type='ScriptedScore', counter='epoch', score=[0, 1]),
    )
    assert f'at epoch 2, iteration {step}: distill.loss_level0 = nan' in message
    assert {'epoch_1.pth', 'epoch_1_student.pth'} < before.keys()
    assert any(name.startswith('best_') for name in before)
    assert files(work_dir) == before


def test_no_checkpoint_by_iterations_is_lost(work_dir, teacher_ckpt):
    message, before = diverge(
        work_dir,
        distillation(teacher_ckpt),
        step=3,
        iters=6,
        checkpoint=dict(interval=2, max_keep_ckpts=1),
    )
    assert 'iteration 3: distill.loss_level0 = nan' in message
    assert before.keys() == {'iter_2.pth', 'iter_2_student.pth'}
    assert files(work_dir) == before


def test_checkpoint_with_a_constant_name_is_not_overwritten(work_dir, teacher_ckpt):
    _, before = diverge(
        work_dir,
        distillation(teacher_ckpt),
        step=4,
        checkpoint=dict(filename_tmpl='latest.pth'),
    )
    assert before.keys() == {'latest.pth', 'latest_student.pth'}
    assert files(work_dir) == before


def test_last_iteration(work_dir, teacher_ckpt):
    """`save_last` writes where the interval would not."""
    message, before = diverge(
        work_dir,
        distillation(teacher_ckpt),
        step=5,
        iters=5,
        checkpoint=dict(interval=3),
    )
    assert 'iteration 5: ' in message
    assert files(work_dir) == before != {}


def test_best_checkpoint_of_an_iteration_loop(work_dir):
    """No checkpoint by iterations, validation alone asks for one, each time."""
    message, before = diverge(
        work_dir,
        student(),
        name='head.fc.bias',
        step=3,
        iters=4,
        checkpoint=dict(
            interval=-1, save_last=False, save_best='score', rule='greater'
        ),
        validate=True,
        val_evaluator=dict(type='ScriptedScore', counter='iter', score=[0, 1, 2, 3]),
    )
    assert 'iteration 3: loss = nan' in message
    assert len(before) == 1
    assert files(work_dir) == before


@pytest.mark.parametrize('by_epoch', [True, False])
def test_weights_that_diverged_behind_a_finite_loss(by_epoch, work_dir, teacher_ckpt):
    name = 'architecture.backbone.layer1.0.conv1.weight'
    message, before = diverge(
        work_dir,
        distillation(teacher_ckpt),
        name=name,
        step=4,
        after=True,
        checkpoint=dict(interval=1 if by_epoch else 2, max_keep_ckpts=1),
        **({} if by_epoch else dict(iters=4)),
    )
    where = 'epoch 2, iteration 4' if by_epoch else 'epoch 1, iteration 4'
    assert message.startswith(f'1 parameters not finite after {where}: {name}. ')
    assert len(before) == 2
    assert files(work_dir) == before


def test_infinite_values_count(work_dir):
    hook = dict(type='mmfakd.CheckFiniteHook', interval=1)
    with pytest.raises(FloatingPointError, match='loss = (inf|nan)'):
        train(
            run_config(work_dir, student(), hooks=[hook]),
            Diverge('head.fc.bias', 2, value=float('inf')),
        )


def test_finite_run_is_left_alone(work_dir):
    hook = dict(type='mmfakd.CheckFiniteHook', interval=1)
    train(run_config(work_dir, student(), hooks=[hook], validate=True))
    assert {'epoch_1.pth', 'epoch_2.pth'} <= files(work_dir).keys()


def test_validation_alone_is_left_alone(work_dir):
    hook = dict(type='mmfakd.CheckFiniteHook')
    cfg = run_config(work_dir, student(), hooks=[hook], validate=True)
    runner = Runner.from_cfg(cfg)
    runner.val()
    # Nothing asked for the training data.
    assert isinstance(runner._train_loop, dict)


def test_losses_are_kept_without_their_graph_and_until_the_check(work_dir):
    hook = CheckFiniteHook()
    hook.check = lambda runner: None
    train(run_config(work_dir, student()), hook)
    assert [where for where, _ in hook._losses] == [
        f'epoch {epoch}, iteration {2 * epoch - 2 + i}'
        for epoch in (1, 2)
        for i in (1, 2)
    ]
    assert all(loss.grad_fn is None for loss in hook._losses.values())
    del hook.check
    hook.check(SimpleNamespace(model=torch.nn.Linear(1, 1)))
    assert not hook._losses


@pytest.mark.parametrize('interval', [0, -1])
def test_bad_interval(interval):
    with pytest.raises(ValueError, match=f'interval={interval}; expected a positive'):
        CheckFiniteHook(interval=interval)


def test_large_half_precision_values_are_finite():
    """Their sum overflows, they do not."""
    large = torch.full((100,), 6e4, dtype=torch.float16)
    assert _not_finite(dict(large=large, empty=torch.empty(0))) == []
    assert _not_finite(dict(a=large, b=torch.tensor(float('inf')))) == ['b']
