# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses that are no number, or that pull nowhere, in the first step."""

import copy
import math

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.algorithms.first_step import FirstStep
from mmfakd.models.algorithms.judge_losses import judge_losses
from mmfakd.models.algorithms.level_report import LevelReport
from tests.helpers.toy import batch, classifier, feature_distill, losses_of

LAYER = ['backbone.layer3']


@MODELS.register_module(force=True)
class RootOfZero(nn.Module):
    """A loss that is finite, and whose gradient is not."""

    def forward(self, s_feature, t_feature):
        gap = s_feature - s_feature.detach()
        return gap.pow(2).mean().sqrt() + (s_feature - t_feature).abs().mean()


@MODELS.register_module(force=True)
class ZeroByZero(nn.Module):
    """A loss that is no number."""

    def forward(self, s_feature, t_feature):
        return (s_feature - t_feature).mean() * 0 / (s_feature * 0).sum()


@MODELS.register_module(force=True)
class NothingAtAll(nn.Module):
    """As a mask that is empty."""

    def forward(self, s_feature, t_feature):
        return (s_feature * 0).sum()


def levels(loss, **kwargs):
    distiller = dict(
        type='mmfakd.LevelDistiller',
        student_levels=LAYER,
        teacher_levels=LAYER,
        level_loss=dict(type=loss),
    )
    return dict(distiller, **kwargs)


def logits(loss):
    recorders = dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=copy.deepcopy(recorders),
        distill_losses=dict(loss_kd=loss),
        loss_forward_mappings=dict(
            loss_kd=dict(
                logits_S=dict(recorder='fc', from_student=True),
                logits_T=dict(recorder='fc', from_student=False),
            )
        ),
    )


def look(distiller, **kwargs):
    torch.manual_seed(0)
    model = feature_distill(
        teacher=classifier(),
        distiller=distiller,
        data_preprocessor=dict(
            type='ClsDataPreprocessor', num_classes=10, mean=[120.0] * 3, std=[70.0] * 3
        ),
        **kwargs,
    )
    model._teacher.has_weights = True
    losses_of(model, batch())
    return model.first_step


@pytest.mark.parametrize('weight', [1.0, 0.0])
def test_a_loss_that_is_no_number_ends_it(weight):
    """By a weight of 0, too, which makes no number of it."""
    with pytest.raises(ValueError, match=r"loss_level0 \('backbone.layer3'\): the lo"):
        look(levels('ZeroByZero', loss_weight=weight))


def test_in_float16_the_scaler_may_skip_the_step():
    report = FirstStep([LevelReport('loss_kd', [], [], loss=math.inf, reached=9)])
    judge_losses(report, in_float16=True)
    assert report.errors == []
    [warning] = report.warnings
    assert 'loss_kd: the loss is inf' in warning and "'bfloat16'" in warning


def test_what_reaches_nothing_is_told_elsewhere():
    row = LevelReport('loss_kd', [], [], loss=1.0, norm=0.0, reached=0)
    judge_losses(report := FirstStep([row]), in_float16=False)
    assert report.errors == report.warnings == []


@pytest.mark.parametrize('own', [True, False])
def test_a_gradient_that_is_not_finite(own):
    report = look(levels('RootOfZero'), calculate_student_loss=own)
    [warning] = report.warnings
    assert warning.startswith("loss_level0 ('backbone.layer3'): the gradient of a loss")


@pytest.mark.parametrize('own', [True, False])
def test_weights_of_zero_inside_a_loss(own):
    weights = dict(inter_loss_weight=0.0, intra_loss_weight=0.0)
    cfg = logits(dict(type='mmrazor.DISTLoss', **weights))
    report = look(cfg, calculate_student_loss=own)
    [warning] = [w for w in report.warnings if 'exactly 0' in w]
    assert warning.startswith("loss_kd ('head.fc'): its gradient on the student is ex")


def test_one_level_of_several_that_pulls_nowhere():
    """The others are judged as ever."""
    two = ['backbone.layer2', *LAYER]
    loss = [dict(type='mmrazor.L2Loss', loss_weight=1e5), dict(type='NothingAtAll')]
    cfg = dict(levels(''), student_levels=two, teacher_levels=two, level_loss=loss)
    said = ' '.join(look(cfg).warnings)
    assert "loss_level1 ('backbone.layer3'): its gradient on the student is ex" in said
    assert 'times that of its own loss' in said


@pytest.mark.parametrize(
    'quiet',
    [
        dict(distiller=levels('mmrazor.L2Loss')),
        dict(distiller=levels('mmrazor.L2Loss', warmup=dict(begin=1, end=4))),
        dict(distiller=levels('mmrazor.L2Loss', loss_weight=0.0)),
    ],
    ids=['plain', 'warm-up from 0', 'weight 0'],
)
def test_what_may_be(quiet):
    """A factor of 0 at first is one of the warm-up; a weight of 0 is noted."""
    assert not [w for w in look(**quiet).warnings if 'exactly 0' in w]
