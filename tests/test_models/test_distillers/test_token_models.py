# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Transformers as teachers and students of each other and of a convolutional net."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.utils import export_student
from tests.helpers.token_models import MODELS_WITH_LEVELS, vit_classifier
from tests.helpers.toy import batch, feature_distill, losses_of, step, without_gradient

PAIRS = [
    *((other, 'cnn') for other in MODELS_WITH_LEVELS if other != 'cnn'),
    *(('cnn', other) for other in MODELS_WITH_LEVELS if other != 'cnn'),
    ('swin', 'vit'),
    ('registers', 'swin'),
    ('vit', 'registers'),
]


def connector(kind, student, teacher, **kwargs):
    channels = dict(in_channels=student[2], out_channels=teacher[2])
    return dict(type=f'mmfakd.{kind}', **channels, **kwargs)


def distiller(student, teacher, connector):
    return dict(
        type='mmfakd.ReviewDistiller',
        student_levels=student[1],
        teacher_levels=teacher[1],
        connector=connector,
    )


def pair(student, teacher, distiller):
    return feature_distill(
        architecture=student[0],
        teacher=teacher[0],
        distiller=distiller,
    )


def check(model, levels):
    """A step with one finite loss a level and a gradient wherever one belongs."""
    losses = step(model, batch(size=16))
    names = [name for name in losses if name.startswith('distill.')]
    assert names == [f'distill.loss_level{i}' for i in range(levels)]
    assert all(value.isfinite() for value in losses.values())
    assert all(losses[name] > 0 for name in names)
    assert without_gradient(model.distiller) == []


@pytest.mark.parametrize(('teacher', 'student'), PAIRS)
def test_review_of_dense_filters(teacher, student):
    student, teacher = MODELS_WITH_LEVELS[student], MODELS_WITH_LEVELS[teacher]
    review = connector('ReviewConnector', student, teacher, sizes=teacher[3])
    model = pair(student, teacher, distiller(student, teacher, review))
    stock = MODELS.build(copy.deepcopy(student[0]))
    names = list(stock.state_dict())
    check(model, 4)
    assert list(model.architecture.state_dict()) == names
    # Whatever the stock student trains is trained: the head by its own loss.
    stock.train()
    step(stock, batch(size=16))
    assert set(without_gradient(model.architecture)) <= set(without_gradient(stock))


@pytest.mark.parametrize(('teacher', 'student'), [('vit', 'cnn'), ('cnn', 'swin')])
def test_review_of_modes(teacher, student):
    student, teacher = MODELS_WITH_LEVELS[student], MODELS_WITH_LEVELS[teacher]
    review = connector(
        'ReviewConnector',
        student,
        teacher,
        scales=[b / a for a, b in zip(student[3], teacher[3])],
        transform=dict(type='mmfakd.FrequencyAttention', modes=4),
    )
    check(pair(student, teacher, distiller(student, teacher, review)), 4)


@pytest.mark.parametrize(('teacher', 'student'), [('registers', 'cnn'), ('cnn', 'vit')])
def test_review_kd(teacher, student):
    student, teacher = MODELS_WITH_LEVELS[student], MODELS_WITH_LEVELS[teacher]
    review = connector(
        'ReviewConnector',
        student,
        teacher,
        sizes=teacher[3],
        mid_channels=8,
        fusion=dict(type='mmfakd.AttentionBasedFusion'),
        transform=dict(type='mmfakd.ConvTransform'),
        always_match=True,
        match_act_cfg=None,
        act_cfg=None,
    )
    cfg = distiller(student, teacher, review)
    cfg['level_loss'] = dict(type='mmfakd.HierarchicalContextLoss')
    check(pair(student, teacher, cfg), 4)


@pytest.mark.parametrize(('teacher', 'student'), PAIRS)
def test_layer_to_layer(teacher, student):
    student, teacher = MODELS_WITH_LEVELS[student], MODELS_WITH_LEVELS[teacher]
    layers = connector('LayerwiseConnector', student, teacher, sizes=teacher[3])
    check(pair(student, teacher, distiller(student, teacher, layers)), 4)


def level_distiller(student, teacher, loss, connectors=None):
    return dict(
        type='mmfakd.LevelDistiller',
        student_levels=student[1][:3],
        teacher_levels=teacher[1][:3],
        level_loss=dict(type=loss),
        student_connectors=connectors,
    )


def filters(student, teacher):
    """A connector for each of three levels, to the teacher's channels and grid."""
    return [
        dict(
            type='mmfakd.FrequencyAttentionConnector',
            in_channels=channels,
            out_channels=others,
            size=size,
        )
        for channels, others, size in zip(student[2], teacher[2], teacher[3][:3])
    ]


@pytest.mark.parametrize(('teacher', 'student'), [('swin', 'vit'), ('vit', 'cnn')])
def test_loss_for_each_level(teacher, student):
    student, teacher = MODELS_WITH_LEVELS[student], MODELS_WITH_LEVELS[teacher]
    connectors = filters(student, teacher)
    cfg = level_distiller(student, teacher, 'mmrazor.L2Loss', connectors)
    check(pair(student, teacher, cfg), 3)


def test_overhaul():
    """Margins need a teacher with batch norms; the student has tokens."""
    student, teacher = MODELS_WITH_LEVELS['vit'], MODELS_WITH_LEVELS['cnn']
    cfg = level_distiller(
        student, teacher, 'mmrazor.OFDLoss', filters(student, teacher)
    )
    margins = [f'backbone.layer{i}.1.bn2' for i in (1, 2, 3)]
    cfg.update(type='mmfakd.OverhaulDistiller', margins=margins)
    check(pair(student, teacher, cfg), 3)


def test_loss_without_connectors():
    """Attention maps need equal grids only: DeiT's and ViT's."""
    student, teacher = MODELS_WITH_LEVELS['vit'], MODELS_WITH_LEVELS['deit']
    cfg = level_distiller(student, teacher, 'mmrazor.ATLoss')
    check(pair(student, teacher, cfg), 3)


def test_grids_that_differ_want_a_connector():
    student, teacher = MODELS_WITH_LEVELS['vit'], MODELS_WITH_LEVELS['cnn']
    model = pair(student, teacher, level_distiller(student, teacher, 'mmrazor.ATLoss'))
    expected = r'level 0: .*\(4, 16, 4, 4\).*\(4, 4, 16, 16\).*FrequencyAttentionConn'
    with pytest.raises(ValueError, match=expected):
        losses_of(model, batch(size=16))


def test_losses_are_those_of_maps_made_by_hand():
    student, teacher = MODELS_WITH_LEVELS['deit'], MODELS_WITH_LEVELS['registers']
    review = connector('ReviewConnector', student, teacher, sizes=teacher[3])
    model = pair(student, teacher, distiller(student, teacher, review))
    seen = {}

    def watch(role, network, prefix):
        for i in range(3):
            network.backbone.layers[i].register_forward_hook(
                lambda _, __, out, i=i: seen.update({(role, i): out[:, prefix:]})
            )
        network.backbone.register_forward_hook(
            lambda _, __, out: seen.update({(role, 3): out[0]})
        )

    watch('student', model.architecture, 2)
    watch('teacher', model.teacher, 5)
    losses = losses_of(model, batch(size=16))
    student_maps = [
        seen['student', i].permute(0, 2, 1).reshape(4, 16, 4, 4) for i in range(3)
    ]
    targets = [
        seen['teacher', i].permute(0, 2, 1).reshape(4, 16, 8, 8) for i in range(3)
    ]
    predictions = model.distiller.connectors['review'](
        [*student_maps, seen['student', 3][0]]
    )
    for i, target in enumerate([*targets, seen['teacher', 3][..., None, None]]):
        expected = (predictions[i] - target).square().mean()
        torch.testing.assert_close(losses[f'distill.loss_level{i}'], expected)


def test_student_is_exported():
    student, teacher = MODELS_WITH_LEVELS['vit'], MODELS_WITH_LEVELS['swin']
    review = connector('ReviewConnector', student, teacher, sizes=teacher[3])
    model = pair(student, teacher, distiller(student, teacher, review))
    checkpoint = export_student(dict(state_dict=model.state_dict(), meta={}))
    MODELS.build(vit_classifier()).load_state_dict(checkpoint['state_dict'])


def test_tokens_that_are_not_said():
    student, teacher = MODELS_WITH_LEVELS['cnn'], MODELS_WITH_LEVELS['vit']
    review = connector('ReviewConnector', student, teacher, sizes=teacher[3])
    cfg = distiller(student, teacher, review)
    cfg['teacher_levels'] = ['backbone.layers.0', *teacher[1][1:]]
    expected = r"teacher level 'backbone.layers.0': .*`tokens`.*17 = 1 \+ 4 x 4"
    with pytest.raises(ValueError, match=expected):
        losses_of(pair(student, teacher, cfg), batch(size=16))
