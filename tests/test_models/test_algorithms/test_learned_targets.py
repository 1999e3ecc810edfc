# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Connectors behind the teacher that learn are noted."""

import pytest

from tests.helpers.toy import POOL, batch, feature_distill, losses_of

CONV = dict(type='mmrazor.ConvModuleConnector', norm_cfg=None, act_cfg=None)
OURS = dict(CONV, in_channel=16, out_channel=32)
THEIRS = dict(CONV, in_channel=32, out_channel=16)
SAME = dict(POOL, module_args=dict(kernel_size=1))


def levels(ours, theirs):
    """One level, with connectors on its sides."""
    return dict(
        type='mmfakd.LevelDistiller',
        student_levels=['backbone.layer3'],
        teacher_levels=['backbone.layer3'],
        level_loss=dict(type='mmrazor.L2Loss'),
        student_connectors=ours,
        teacher_connectors=theirs,
    )


def mapping():
    """The same by a mapping of mmrazor's."""
    recorders = dict(feature=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
    side = dict(recorder='feature', from_student=True)
    theirs = dict(side, from_student=False, connector='theirs')
    linear = dict(
        type='mmrazor.TorchNNConnector',
        module_name='Linear',
        module_args=dict(in_features=10, out_features=10, bias=False),
    )
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=dict(recorders),
        connectors=dict(theirs=linear),
        distill_losses=dict(loss_l2=dict(type='mmrazor.L2Loss')),
        loss_forward_mappings=dict(loss_l2=dict(s_feature=side, t_feature=theirs)),
    )


def noted(distiller, frozen=False, **kwargs):
    model = feature_distill(distiller=distiller, **kwargs)
    for name, connector in model.distiller.connectors.items():
        connector.requires_grad_(not (frozen and name == 'teacher0'))
    losses_of(model, batch())
    return [note for note in model.first_step.notes if 'trivial' in note]


@pytest.mark.parametrize(
    ('distiller', 'start'),
    [
        (levels(None, THEIRS), "loss_level0: the teacher's feature passes 528 weights"),
        (mapping(), "loss_l2: the teacher's feature passes 100 weights"),
    ],
)
def test_a_target_that_learns(distiller, start):
    [note] = noted(distiller)
    assert note.startswith(start)


def test_targets_that_do_not():
    assert noted(levels(OURS, None)) == []
    assert noted(levels(OURS, SAME)) == []
    assert noted(levels(None, THEIRS), frozen=True) == []
    # Pre-training of what stands behind the teacher.
    assert noted(levels(None, THEIRS), student_trainable=False) == []
