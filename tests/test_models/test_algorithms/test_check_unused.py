# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses and connectors that stand in a config and do nothing are told."""

import pytest
from mmengine.registry import MODELS
from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn

from mmfakd.models.algorithms import check_unused
from tests.helpers.toy import (
    POOL,
    batch,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
)

KD = dict(type='mmrazor.KLDivergence')
# It trains on whatever side.
ATTACHED = dict(KD, teacher_detach=False)
FC = dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
PREDICTIONS = dict(
    preds_S=dict(recorder='fc', from_student=True),
    preds_T=dict(recorder='fc', from_student=False),
)
CONNECTOR = dict(
    type='mmfakd.FrequencyAttentionConnector', in_channels=4, out_channels=8, modes=2
)


@MODELS.register_module()
class LossesOfItsOwn(ConfigurableDistiller):
    """A distiller of a user, of which nothing is known."""

    def compute_distill_losses(self):
        return {}


@pytest.fixture
def told(monkeypatch):
    texts = []
    monkeypatch.setattr(check_unused, 'print_log', lambda text, **_: texts.append(text))
    return texts


@pytest.mark.parametrize(
    ('distiller', 'lost'),
    [
        (dict(layer_distiller(), loss_forward_mappings=None), ['loss_fam']),
        (review_distiller(distill_losses=dict(loss_kd=KD)), ['loss_kd']),
        (
            review_distiller(
                student_recorders=FC,
                teacher_recorders=FC,
                distill_losses=dict(loss_kd=KD, loss_more=KD),
                loss_forward_mappings=dict(loss_kd=PREDICTIONS),
            ),
            ['loss_more'],
        ),
    ],
)
def test_a_loss_that_is_never_computed(distiller, lost):
    with pytest.raises(ValueError) as caught:
        feature_distill(distiller=distiller)
    text = str(caught.value)
    assert text.startswith(f'distill_losses: {lost} would never be computed')
    assert f'{lost[0]}=dict(preds_S=' in text


def sides(*from_student):
    """Losses of logits, each with two sides; of the whole, one loss a pair."""
    mappings, cfg = {}, layer_distiller('head.fc')
    for i in range(0, len(from_student), 2):
        mappings[f'loss_{i // 2}'] = {
            f'preds_{side}': dict(recorder='feature', from_student=given)
            for side, given in zip('ST', from_student[i:])
        }
    return dict(
        cfg,
        connectors=None,
        distill_losses=dict.fromkeys(mappings, KD),
        loss_forward_mappings=mappings,
    )


@pytest.mark.parametrize(
    ('given', 'start'),
    [
        ((True, True), 'NOTHING IS DISTILLED: no loss asks the teacher, as all that '),
        ((True, True, True, True), 'NOTHING IS DISTILLED'),
        ((True, False, True, True), 'loss_1 compares the student with itself'),
        ((True, False, False, True), "loss_1 gets the student's ['preds_T'] and the"),
    ],
)
def test_a_loss_with_wrong_sides(given, start, told):
    cfg = sides(*given)
    cfg['distill_losses'] = dict.fromkeys(cfg['distill_losses'], ATTACHED)
    model = feature_distill(distiller=cfg)
    [text] = told
    assert text.startswith(start)
    # `mmfakd check` sees it, too.
    losses_of(model, batch())
    assert text in model.first_step.warnings


def test_features_with_wrong_sides(told):
    """Named as our own losses name them."""
    cfg = layer_distiller()
    gets = cfg['loss_forward_mappings']['loss_fam']
    gets['s_feature']['from_student'], gets['t_feature']['from_student'] = False, True
    feature_distill(distiller=cfg)
    [text] = told
    assert text.startswith(
        "loss_fam gets the student's ['t_feature'] and the teacher's"
    )


@MODELS.register_module()
class Penalty(nn.Module):
    """A loss of what is the student's alone, as of a feature and labels."""

    def forward(self, feature, other):
        return (feature * other).mean()


def test_what_need_not_ask_the_teacher(told):
    """A penalty beside other losses, and teachers that deliver."""
    cfg = sides(True, False)
    cfg['distill_losses'] = dict(cfg['distill_losses'], loss_own=dict(type='Penalty'))
    cfg['loss_forward_mappings']['loss_own'] = dict(
        feature=dict(recorder='feature', from_student=True),
        other=dict(recorder='feature', from_student=True),
    )
    feature_distill(distiller=cfg)
    deliver = dict(
        type='FunctionOutputs',
        max_keep_data=1,
        func_path='mmpretrain.models.losses.utils.weight_reduce_loss',
    )
    feature_distill(
        distiller=dict(sides(True, True), distill_deliveries=dict(d=deliver))
    )
    assert told == []


def test_a_loss_that_never_asks_the_student():
    model = feature_distill(distiller=sides(False, False))
    text = 'loss_0 takes nothing of the student: all its entries in `loss_forward_mapp'
    with pytest.raises(ValueError, match=text):
        losses_of(model, batch())


def test_losses_with_mappings_beside_levels(told):
    model = feature_distill(
        distiller=review_distiller(
            student_recorders=FC,
            teacher_recorders=FC,
            distill_losses=dict(loss_kd=KD),
            loss_forward_mappings=dict(loss_kd=PREDICTIONS),
        )
    )
    assert 'distill.loss_kd' in losses_of(model, batch())
    assert told == []


def test_a_distiller_of_ones_own_is_left_alone(told):
    cfg = dict(layer_distiller(), type='LossesOfItsOwn', loss_forward_mappings=None)
    feature_distill(distiller=cfg)
    assert told == []


@pytest.mark.parametrize('base', [layer_distiller, review_distiller])
def test_a_connector_that_never_runs(base, told):
    cfg = base()
    cfg['connectors'] = dict(cfg.get('connectors', {}), further=CONNECTOR)
    feature_distill(distiller=cfg)
    (text,) = told
    assert text.startswith('NEVER TRAINED')
    assert "the connectors ['further']" in text


def test_a_connector_without_weights_may_rest(told):
    feature_distill(distiller=review_distiller(connectors=dict(pool=POOL)))
    assert told == []
