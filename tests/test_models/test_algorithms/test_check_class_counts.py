# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Predictions of other classes cannot be compared, and this is said in time."""

import copy

import pytest
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.algorithms import check_class_counts
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    losses_of,
    review_distiller,
)
from tests.helpers.toy_detectors import reid

STUDENT, TEACHER = 3, 7
FORWARD = 'mmpretrain.models.heads.LinearClsHead.forward'


@MODELS.register_module(force=True)
class MeanGap(nn.Module):
    """A user's loss, which broadcasts whatever it gets."""

    def forward(self, s_feature, t_feature):
        return (s_feature.mean() - t_feature.mean()).abs()


def logits_distiller(loss='mmrazor.KLDivergence', source='head.fc', **kwargs):
    """One loss between student and teacher at one layer."""
    names = next(
        names
        for kinds, names in (
            (
                ('KLDivergence', 'DKDLoss', 'NKDLoss', 'CrossEntropyLoss'),
                ('preds_S', 'preds_T'),
            ),
            (('ChannelWiseDivergence', 'RKD'), ('preds_S', 'preds_T')),
            (('DISTLoss',), ('logits_S', 'logits_T')),
            (('WSLD',), ('student', 'teacher')),
            (('',), ('s_feature', 't_feature')),
        )
        if loss.endswith(kinds)
    )
    recorders = dict(fc=dict(type='mmrazor.ModuleOutputs', source=source))
    mapping = {
        names[0]: dict(recorder='fc', from_student=True),
        names[1]: dict(recorder='fc', from_student=False),
    }
    student_recorders = copy.deepcopy(recorders)
    if loss.endswith(('DKDLoss', 'NKDLoss', 'WSLD')):
        student_recorders['target'] = dict(
            type='mmrazor.ModuleInputs', source='head.loss_module'
        )
        target = dict(recorder='target', from_student=True, data_idx=1)
        # First, to be no hindrance there either.
        mapping = dict(gt_labels=target, **mapping)
    options = dict(num_classes=STUDENT) if loss.endswith('WSLD') else {}
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=student_recorders,
        teacher_recorders=recorders,
        distill_losses=dict(loss_kd=dict(type=loss, **options)),
        loss_forward_mappings=dict(loss_kd=mapping),
        **kwargs,
    )


def pair(distiller, student=STUDENT, teacher=TEACHER, **kwargs):
    return feature_distill(
        architecture=classifier(num_classes=student),
        teacher=classifier(width=8, num_classes=teacher),
        distiller=distiller,
        **kwargs,
    )


def losses(model, classes=STUDENT):
    return losses_of(model, batch(num_classes=classes))


@pytest.mark.parametrize(
    'loss',
    [
        'mmrazor.KLDivergence',
        'mmrazor.DKDLoss',
        'mmfakd.NKDLoss',
        'mmrazor.DISTLoss',
        'mmrazor.CrossEntropyLoss',
        'mmrazor.WSLD',
        'mmrazor.L2Loss',
        'mmfakd.FFTFeatureLoss',
        'mmengine.MeanGap',
    ],
)
def test_refused_when_the_model_is_built(loss):
    with pytest.raises(ValueError) as error:
        pair(logits_distiller(loss))
    message = str(error.value)
    assert message.startswith(
        f'loss_kd: {loss.split(".")[1]} compares the predictions of student and '
        'teacher, but the student has 3 classes and the teacher 7 (layers '
        "'head.fc' and 'head.fc', 3 and 7 values)."
    )
    assert 'feature losses work for this pair' in message
    assert 'remove this loss and distil features' in message
    assert "first train the teacher on the student's classes" in message


@pytest.mark.parametrize('loss', ['mmrazor.KLDivergence', 'mmrazor.DKDLoss'])
@pytest.mark.parametrize(
    'recorder',
    [
        dict(type='mmrazor.ModuleOutputs', source='head'),
        dict(type='mmrazor.MethodOutputs', source=FORWARD),
    ],
    ids=['head', 'method'],
)
def test_refused_at_the_first_step_where_layers_do_not_tell(loss, recorder):
    """The head is no single layer: its tensors are looked at."""
    distiller = logits_distiller(loss)
    for side in ('student', 'teacher'):
        distiller[f'{side}_recorders']['fc'] = dict(recorder)
    model = pair(distiller)
    with pytest.raises(ValueError, match='student has 3 classes and the teacher 7'):
        losses(model)


def test_a_loss_around_it_hides_nothing():
    cfg = logits_distiller()
    inner = cfg['distill_losses']['loss_kd']
    cfg['distill_losses']['loss_kd'] = dict(
        type='mmfakd.StandardizedLogitsLoss', loss=inner
    )
    with pytest.raises(ValueError, match='loss_kd: KLDivergence compares .*3 .*7'):
        pair(cfg)


def test_refused_beside_feature_losses():
    """The features alone go through: the error is about the one loss."""
    kd = logits_distiller()
    kd.pop('type')
    with pytest.raises(ValueError, match='loss_kd: KLDivergence .*3 classes .*7'):
        pair(review_distiller(**kd))
    values = losses(pair(review_distiller()))
    assert sum(key.startswith('distill.loss_level') for key in values) == 4
    assert all(value.isfinite() for value in values.values())


def test_one_class_against_many_would_broadcast():
    """In silence: L2Loss subtracts (4, 1) from (4, 7)."""
    with pytest.raises(ValueError, match='student has 1 classes and the teacher 7'):
        pair(logits_distiller('mmrazor.L2Loss'), student=1)


def test_cross_entropy_may_fit_by_accident():
    """The teacher's best class may be one of the student's, so nothing would raise."""
    model = pair(logits_distiller('mmrazor.CrossEntropyLoss', source='head'))
    with pytest.raises(ValueError, match='CrossEntropyLoss'):
        losses(model)


@pytest.mark.parametrize('loss', ['KLDivergence', 'DKDLoss', 'DISTLoss', 'WSLD'])
@pytest.mark.parametrize('source', ['head', 'head.fc'])
def test_equal_classes_pass(loss, source):
    model = pair(logits_distiller(f'mmrazor.{loss}', source), teacher=STUDENT)
    assert losses(model)['distill.loss_kd'].isfinite()


@pytest.mark.parametrize('loss', ['DistanceWiseRKD', 'AngleWiseRKD'])
@pytest.mark.parametrize('source', ['neck.gap', 'head.fc'])
def test_relations_of_samples_pass(loss, source):
    """They compare distances between samples: widths do not matter."""
    model = pair(logits_distiller(f'mmrazor.{loss}', source))
    assert losses(model)['distill.loss_kd'].isfinite()


@pytest.mark.parametrize('loss', ['mmrazor.ATLoss', 'mmengine.MeanGap'])
def test_features_of_unequal_width_pass_where_the_loss_takes_them(loss):
    model = pair(logits_distiller(loss, 'backbone.layer2'))
    assert losses(model)['distill.loss_kd'].isfinite()


def test_a_connector_may_turn_classes_into_others():
    distiller = logits_distiller(
        connectors=dict(
            to_teacher=dict(
                type='mmrazor.TorchNNConnector',
                module_name='Linear',
                module_args=dict(in_features=STUDENT, out_features=TEACHER),
            )
        )
    )
    mapping = distiller['loss_forward_mappings']['loss_kd']
    mapping['preds_S']['connector'] = 'to_teacher'
    assert losses(pair(distiller))['distill.loss_kd'].isfinite()


@pytest.mark.parametrize('source', ['neck.gap', 'backbone.layer2.1.conv2'])
def test_features_of_unequal_width_are_no_matter_of_classes(source):
    """A layer without a width is found at the first step, a convolution before."""
    with pytest.raises(ValueError) as error:
        losses(pair(logits_distiller('mmrazor.L2Loss', source)))
    message = str(error.value)
    widths = '16 channels' if source == 'neck.gap' else '8 channels'
    assert widths in message and source in message
    assert 'with a connector' in message and 'classes' not in message


def test_heads_that_do_not_count_classes():
    """The values themselves are counted."""
    models = [
        MODELS.build(classifier(width=width, num_classes=count))
        for width, count in ((4, STUDENT), (8, TEACHER))
    ]
    for model in models:
        del model.head.num_classes
    with pytest.raises(ValueError, match='student has 3 classes and the teacher 7'):
        feature_distill(
            architecture=models[0], teacher=models[1], distiller=logits_distiller()
        )


def test_levels_of_a_level_distiller():
    levels = dict(student_levels='head.fc', teacher_levels='head.fc')
    distiller = dict(
        type='mmfakd.LevelDistiller', level_loss=dict(type='mmrazor.L2Loss'), **levels
    )
    with pytest.raises(ValueError, match=r'loss_level0: L2Loss .*3 classes .*7'):
        pair(distiller)
    assert losses(pair(distiller, teacher=STUDENT))['distill.loss_level0'].isfinite()


def test_a_record_that_does_not_exist_is_told_as_such():
    distiller = logits_distiller('mmrazor.ATLoss')
    distiller['loss_forward_mappings']['loss_kd']['s_feature']['record_idx'] = 5
    with pytest.raises(RuntimeError, match='record_idx'):
        losses(pair(distiller))


def retinanet(classes):
    return dict(
        cfg_path='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
        bbox_head=dict(num_classes=classes, stacked_convs=1),
    )


@pytest.mark.parametrize('student', [3, 1])
def test_detectors_count_classes_for_each_anchor(student):
    """Nine anchors: 27 values against 720."""
    distiller = logits_distiller(
        'mmrazor.ChannelWiseDivergence', source='bbox_head.retina_cls'
    )
    with pytest.raises(ValueError) as error:
        feature_distill(
            architecture=retinanet(student), teacher=retinanet(80), distiller=distiller
        )
    assert f'student has {student} classes and the teacher 80' in str(error.value)
    assert f'{9 * student} and 720 values' in str(error.value)


def test_convolutions_of_a_head_are_features():
    """They lie in the head, but have no classes."""
    distiller = logits_distiller(
        'mmengine.MeanGap', source='bbox_head.cls_convs.0.conv'
    )
    narrow = retinanet(3)
    narrow['bbox_head'].update(feat_channels=128)
    feature_distill(architecture=narrow, teacher=retinanet(80), distiller=distiller)


# ---- a softmax where there is none


def several_labels(kind='MultiLabelLinearClsHead', **kwargs):
    cfg = classifier(num_classes=STUDENT, **kwargs)
    cfg['head'].update(type=kind, loss=dict(type='CrossEntropyLoss', use_sigmoid=True))
    return cfg


@pytest.mark.parametrize(
    ('kind', 'distiller', 'warned'),
    [
        ('MultiLabelLinearClsHead', logits_distiller(), True),
        ('MultiLabelLinearClsHead', logits_distiller('mmrazor.DISTLoss'), True),
        ('MultiLabelLinearClsHead', logits_distiller('mmrazor.L2Loss'), False),
        ('MultiLabelLinearClsHead', logits_distiller(source='neck'), False),
        ('MultiLabelLinearClsHead', review_distiller(), False),
        # One class an image, by a loss of sigmoids.
        ('LinearClsHead', logits_distiller(), False),
    ],
)
def test_softmax_over_sigmoids_is_told(kind, distiller, warned, monkeypatch):
    told = []
    monkeypatch.setattr(
        check_class_counts, 'print_log', lambda text, **_: told.append(text)
    )
    feature_distill(
        architecture=several_labels(kind),
        teacher=several_labels(kind, width=8),
        distiller=distiller,
    )
    assert bool(told) == warned
    for text in told:
        assert 'compares a softmax over classes, and the student has several' in text
        assert 'a sigmoid of its own, and the teacher has several labels' in text


def test_the_classes_of_a_re_identification_are_classes(monkeypatch):
    """They stand behind its embedding, in a layer of the head."""
    told = []
    monkeypatch.setattr(
        check_class_counts, 'print_log', lambda text, **_: told.append(text)
    )
    for source, warned in (('head.classifier', False), ('head.bn', True)):
        feature_distill(
            architecture=reid(4),
            teacher=reid(8),
            distiller=logits_distiller(source=source),
        )
        assert bool(told) == warned, source


@pytest.mark.parametrize(
    ('loss', 'refused'),
    [
        ('mmrazor.KLDivergence', True),
        ('mmrazor.L2Loss', True),
        ('mmrazor.ABLoss', True),
        ('mmengine.MeanGap', False),
    ],
)
def test_maps_of_other_sizes(loss, refused):
    """PyTorch would repeat the only number of a channel for a whole map."""
    cfg = logits_distiller(loss, 'backbone.layer3')
    cfg['student_recorders']['fc'] = dict(
        type='mmrazor.ModuleOutputs', source='neck.gap'
    )
    model = feature_distill(
        architecture=classifier(width=8), teacher=classifier(width=8), distiller=cfg
    )
    if refused:
        message = rf'loss_kd: {loss[8:]} compares number by number, .*\(4, 32, 1, 1\) '
        with pytest.raises(ValueError, match=message + r'.*teacher \(4, 32, 2, 2\)'):
            losses_of(model, batch())
    else:
        assert losses_of(model, batch())['distill.loss_kd'].isfinite()


def test_what_enters_the_last_layer_is_a_feature():
    distiller = logits_distiller('mmengine.MeanGap')
    for side in ('student', 'teacher'):
        distiller[f'{side}_recorders']['fc']['type'] = 'mmrazor.ModuleInputs'
    for entry in distiller['loss_forward_mappings']['loss_kd'].values():
        entry['data_idx'] = 0
    assert losses(pair(distiller, student=5), 5)['distill.loss_kd'].isfinite()
