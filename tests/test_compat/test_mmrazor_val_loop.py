# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmrazor's loop scores the teacher by what it sees in the distillation."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from mmengine.runner import Runner
from mmrazor.engine.runner.distill_val_loop import SingleTeacherDistillValLoop
from torch import nn

from mmfakd.analysis.distillation import evaluation_config
from mmfakd.compat import score_teachers_as_distilled
from tests.helpers.tiny_runs import (
    distillation,
    run_config,
    save_teacher,
    teacher,
    train,
)

TEACHER = dict(mean=[77.8], std=[95.9], to_rgb=False)
STUDENT = dict(mean=[0.0], std=[1000.0], to_rgb=False, num_classes=10)


@METRICS.register_module(force=True)
class MeanConfidence(BaseMetric):
    """A number that any other input changes."""

    def process(self, data_batch, data_samples):
        self.results += [sample['pred_score'].max().item() for sample in data_samples]

    def compute_metrics(self, results):
        return dict(confidence=sum(results) / len(results))


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Student and teacher of other normalisations, and mmrazor's loop."""
    folder = tmp_path_factory.mktemp('loop')
    model = distillation(
        save_teacher(folder), teacher=dict(teacher(), data_preprocessor=dict(TEACHER))
    )
    cfg = run_config(folder / 'run', model, epochs=1, validate=True)
    cfg.data_preprocessor = dict(STUDENT)
    cfg.val_cfg = dict(type='mmrazor.SingleTeacherDistillValLoop')
    cfg.val_evaluator = dict(type='MeanConfidence')
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.3)]
    return cfg


class Weights(Hook):
    """Whether the student is trained with what it had before a validation."""

    priority = 'LOWEST'

    def before_val(self, runner):
        self.before = runner.model.architecture.head.fc.weight.clone()

    def before_val_iter(self, runner, **_):
        self.averaged = not torch.equal(
            self.before, runner.model.architecture.head.fc.weight
        )

    def after_val(self, runner):
        self.back = torch.equal(self.before, runner.model.architecture.head.fc.weight)


@pytest.fixture(scope='module')
def weights():
    return Weights()


@pytest.fixture(scope='module')
def runner(config, weights):
    """After a training with it."""
    return train(copy.deepcopy(config), weights)


def test_the_teacher_s_score_is_that_of_its_check(config, runner):
    scores = runner.message_hub.log_scalars
    logged = scores['val/teacher.confidence'].current()
    cfg = evaluation_config(config)
    cfg.experiment_name = 'check'
    check = Runner.from_cfg(cfg)
    check.model.init_weights()
    # It scores the teacher once.
    assert check.val() == {'confidence': pytest.approx(logged, abs=1e-6)}
    assert abs(scores['val/confidence'].current() - logged) > 1e-3
    assert config.val_cfg.type == 'mmrazor.SingleTeacherDistillValLoop'


def test_the_teacher_keeps_its_own_preprocessor(runner):
    model = runner.model
    assert model.teacher.data_preprocessor is not model.data_preprocessor
    assert model.teacher.data_preprocessor.mean.item() == pytest.approx(77.8)
    assert not any('normalised' in text for text in model.first_step.warnings)


def test_averaged_weights_are_for_the_validation_alone(runner, weights):
    assert weights.averaged and weights.back
    assert runner.call_hook.__func__ is Runner.call_hook


def test_other_models_are_treated_as_before(monkeypatch):
    score_teachers_as_distilled()
    model = nn.Module()
    model.data_preprocessor, model.teacher = nn.Identity(), nn.Module()
    runner = SimpleNamespace(model=model, distributed=False)
    base = SingleTeacherDistillValLoop.__mro__[1]
    keep = lambda loop, runner, *_: setattr(loop, '_runner', runner)  # noqa: E731
    monkeypatch.setattr(base, '__init__', keep)
    loop = SingleTeacherDistillValLoop(runner, None, None)
    assert loop.teacher is model.teacher
    assert loop.teacher.data_preprocessor is model.data_preprocessor
