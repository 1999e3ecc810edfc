# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Logits with a margin beside logits without one are told of, nothing else is."""

import pytest
from mmengine.registry import MODELS
from mmpretrain.models import ArcFaceClsHead, LinearClsHead

from mmfakd.models.algorithms import margin_head
from tests.helpers.toy import classifier, feature_distill, review_distiller


@MODELS.register_module(force=True)
class OwnMarginHead(ArcFaceClsHead):
    """A margin of one's own."""


@MODELS.register_module(force=True)
class LabelledHead(LinearClsHead):
    """It takes labels, to log how sure it is of them, and yields plain logits."""

    def forward(self, feats, labels=None, target=None):
        return super().forward(feats)


def logits(source='head', kind='ModuleOutputs', **level):
    theirs = dict(logits=dict(type='mmrazor.ModuleOutputs', source='head'))
    labels = dict(type='mmrazor.ModuleInputs', source='head.loss_module')
    ours = dict(type=f'mmrazor.{kind}', source=source)
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(logits=ours, labels=labels),
        teacher_recorders=theirs,
        distill_losses=dict(loss_kl=dict(type='mmrazor.DKDLoss')),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(recorder='logits', from_student=True, **level),
                preds_T=dict(recorder='logits', from_student=False),
                gt_labels=dict(recorder='labels', from_student=True, data_idx=1),
            )
        ),
    )


ENTERING = dict(source='head.loss_module', kind='ModuleInputs', data_idx=0)


@pytest.mark.parametrize(
    ('head', 'distiller', 'warned'),
    [
        ('ArcFaceClsHead', logits(), True),
        ('ArcFaceClsHead', logits(**ENTERING), True),
        ('ArcFaceClsHead', logits(source='head.norm_product'), False),
        ('ArcFaceClsHead', logits(kind='ModuleInputs'), False),
        ('ArcFaceClsHead', review_distiller(), False),
        ('mmengine.OwnMarginHead', logits(), True),
        ('LinearClsHead', logits(), False),
        ('mmengine.LabelledHead', logits(), False),
    ],
    ids=['head', 'loss', 'cosines', 'inputs', 'features', 'own', 'linear', 'labelled'],
)
@pytest.mark.parametrize('own', [True, False], ids=['labelled', 'label-free'])
def test_margin_is_told(head, distiller, warned, own, monkeypatch):
    said = []
    monkeypatch.setattr(margin_head, 'print_log', lambda text, **_: said.append(text))
    student = classifier()
    student['head']['type'] = head
    cfg = dict(architecture=student, distiller=distiller)
    feature_distill(**cfg, calculate_student_loss=own)
    # Without its own loss the head gets no labels.
    assert len(said) == (warned and own)
    for text in said:
        name = head.rpartition('.')[2]
        assert text.startswith(
            f'loss_kl compares logits, and the student has a head ({name})'
        )
