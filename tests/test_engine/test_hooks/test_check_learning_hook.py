# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A training that moves no weight says so."""

import pytest
from mmengine.hooks import Hook

from mmfakd.engine.hooks import CheckLearningHook, check_learning_hook
from tests.helpers.tiny_runs import distillation, run_config, student, train


@pytest.fixture
def told(monkeypatch):
    texts = []
    monkeypatch.setattr(
        check_learning_hook, 'print_log', lambda text, **kwargs: texts.append(text)
    )
    return texts


def schedule(**kwargs):
    return [dict(dict(type='ConstantLR', by_epoch=True), **kwargs)]


class Freeze(Hook):
    """Keep the optimizer from moving anything, whatever its rate is."""

    def before_train(self, runner):
        runner.optim_wrapper.optimizer.step = lambda *args, **kwargs: None


def test_what_learns_is_not_told_of(work_dir, teacher_ckpt, told):
    train(run_config(work_dir, distillation(teacher_ckpt)), CheckLearningHook())
    train(run_config(work_dir, student()), CheckLearningHook(interval=1))
    assert told == []


def test_a_factor_of_zero(work_dir, teacher_ckpt, told):
    cfg = run_config(work_dir, distillation(teacher_ckpt), epochs=3)
    cfg.param_scheduler = schedule(factor=0.0, end=10)
    train(cfg, CheckLearningHook())
    assert len(told) == 1
    assert told[0].startswith(
        'NOTHING IS LEARNED: no weight of the student has changed in the last 2 '
        'iterations, up to iteration 2. The learning rate is 0: by a factor of 0 in '
        '`param_scheduler`'
    )


@pytest.mark.parametrize('epochs', [3, 4])
def test_a_schedule_that_ends_before_the_training(epochs, work_dir, told):
    """Its last epoch has a rate of 0, which tells nothing in that of the training."""
    cfg = run_config(work_dir, student(), epochs=epochs)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=1, end_factor=0, end=3)]
    train(cfg, CheckLearningHook())
    assert len(told) == (epochs > 3)
    for text in told:
        assert text.startswith(
            'LEARNING HAS ENDED: no weight of the model has changed in the last 2 '
            'iterations, up to iteration 6. The learning rate is 0: '
        )


def test_iterations_are_looked_at_by_the_interval(work_dir, told):
    cfg = run_config(work_dir, student(), iters=7)
    train(cfg, Freeze(), CheckLearningHook(interval=3))
    assert len(told) == 1
    assert (
        'in the last 3 iterations, up to iteration 3. The learning rate is 0.05'
        in (told[0])
    )


class SkipFirst(Hook):
    """Skip the first steps, as a loss scaler does whose scale is too large."""

    def before_train(self, runner):
        optimizer = runner.optim_wrapper.optimizer
        self.step, self.left = optimizer.step, 3
        optimizer.step = self.take

    def take(self, *args, **kwargs):
        self.left -= 1
        if self.left < 0:
            self.step(*args, **kwargs)


def test_single_steps_may_be_skipped(work_dir, told):
    train(run_config(work_dir, student(), epochs=4), SkipFirst(), CheckLearningHook())
    assert told == []


def test_steps_of_several_iterations_are_waited_for(work_dir, told):
    cfg = run_config(work_dir, student(), epochs=4)
    cfg.optim_wrapper.accumulative_counts = 6
    train(cfg, CheckLearningHook())
    assert told == []
    cfg = run_config(work_dir, student(), epochs=4)
    cfg.optim_wrapper.accumulative_counts = 6
    train(cfg, Freeze(), CheckLearningHook(interval=2))
    assert 'in the last 6 iterations, up to iteration 6' in told[0]


def test_a_training_of_a_single_step(work_dir, told):
    cfg = run_config(work_dir, student(), epochs=2)
    cfg.optim_wrapper.accumulative_counts = 5
    train(cfg, CheckLearningHook())
    (text,) = told
    assert text.startswith(
        'optim_wrapper.accumulative_counts=5, but the training has 4 iterations: it is '
        'a single step'
    )


def test_connectors_where_the_student_rests(work_dir, teacher_ckpt, told):
    rests = dict(student_trainable=False, calculate_student_loss=False)
    cfg = run_config(work_dir, distillation(teacher_ckpt, **rests))
    train(cfg, CheckLearningHook())
    assert told == []
    train(cfg, Freeze(), CheckLearningHook(interval=4))
    assert 'no weight of the connectors has changed' in told[0]


@pytest.mark.parametrize('clip', [dict(max_norm=0), dict(max_norm=-1.0)])
def test_gradients_clipped_to_nothing(clip, work_dir):
    cfg = run_config(work_dir, student())
    cfg.optim_wrapper.clip_grad = clip
    with pytest.raises(ValueError, match=f'max_norm={clip["max_norm"]}, with which no'):
        train(cfg, CheckLearningHook())
    cfg.optim_wrapper.clip_grad = dict(type='value', clip_value=0.0)
    with pytest.raises(ValueError, match='clip_value=0.0, with which no gradient'):
        train(cfg, CheckLearningHook())


def test_clipping_is_fine(work_dir, told):
    cfg = run_config(work_dir, student())
    cfg.optim_wrapper.clip_grad = dict(max_norm=35, norm_type=2)
    train(cfg, CheckLearningHook())
    assert told == []


def test_arguments():
    with pytest.raises(ValueError, match='interval=0; expected a positive number'):
        CheckLearningHook(interval=0)
