# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses that need one class an image say so, and leave all others alone."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODELS
from mmrazor.engine import StopDistillHook
from torch import nn

from mmfakd.models.algorithms import feature_distill as feature_distill_module
from mmfakd.models.algorithms.check_one_class import (
    check_later_mixing,
    refuse_later_mixing,
    refuse_mixing,
)
from tests.helpers.toy import batch, classifier, feature_distill, losses_of

NKD = dict(type='mmfakd.NKDLoss')
DKD = dict(type='mmrazor.DKDLoss')
WSLD = dict(type='mmrazor.WSLD', num_classes=10)
KD = dict(type='mmrazor.KLDivergence')
STANDARDIZED = dict(type='mmfakd.StandardizedLogitsLoss', loss=NKD)
MIXUP = dict(augments=dict(type='Mixup', alpha=0.8))


def build(loss, **student):
    target = dict(type='mmrazor.ModuleInputs', source='head.loss_module')
    fc = dict(type='mmrazor.ModuleOutputs', source='head.fc')
    names = ('student', 'teacher') if loss is WSLD else ('preds_S', 'preds_T')
    gets = {
        name: dict(recorder='fc', from_student=i == 0) for i, name in enumerate(names)
    }
    if loss is not KD:
        gets['gt_labels'] = dict(recorder='target', from_student=True, data_idx=1)
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(fc=fc, target=target),
        teacher_recorders=dict(fc=dict(fc)),
        distill_losses=dict(loss_logits=dict(loss)),
        loss_forward_mappings=dict(loss_logits=gets),
    )
    return feature_distill(architecture=classifier(**student), distiller=distiller)


def contrastive(**student):
    """CRD, with the kinds of a whole batch as its negatives."""
    gap = dict(type='mmrazor.ModuleOutputs', source='neck.gap')
    samples = dict(type='mmrazor.ModuleInputs', source='')
    connector = dict(type='mmrazor.CRDConnector', dim_out=8)
    gets = {
        f'{side[0]}_feats': dict(
            recorder='gap', from_student=side == 'student', connector=side
        )
        for side in ('student', 'teacher')
    }
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(gap=gap, samples=samples),
        teacher_recorders=dict(gap=dict(gap)),
        connectors=dict(
            student=dict(connector, dim_in=16), teacher=dict(connector, dim_in=32)
        ),
        distill_losses=dict(
            loss_crd=dict(type='mmfakd.CRDLoss', neg_num=3, sample_n=9, dim_out=8)
        ),
        loss_forward_mappings=dict(
            loss_crd=dict(
                gets,
                data_samples=dict(recorder='samples', from_student=True, data_idx=1),
            )
        ),
    )
    return feature_distill(architecture=classifier(**student), distiller=distiller)


def scored(*entries):
    """A batch whose third image has these scores; the others have one class."""
    data = batch()
    for i, sample in enumerate(data['data_samples']):
        score = torch.zeros(10)
        score[i] = 1
        sample.set_gt_score(score)
    if entries:
        data['data_samples'][2].set_gt_score(torch.tensor(entries, dtype=torch.float))
        data['data_samples'][2].set_metainfo(dict(img_path='images/2.png'))
    return data


def ignored():
    data = batch()
    data['data_samples'][1].set_gt_label(-100)
    data['data_samples'][1].set_metainfo(dict(img_path='images/1.png'))
    return data


@pytest.mark.parametrize(
    ('loss', 'kind'),
    [(NKD, 'NKD'), (DKD, 'DKD'), (WSLD, 'WSLD'), (STANDARDIZED, 'NKD')],
    ids=['nkd', 'dkd', 'wsld', 'wrapped'],
)
def test_batch_augments_that_mix(loss, kind):
    message = f'loss_logits: {kind}.* needs one class an image, and the batch augments '
    message += r'of the student \(ImageClassifier\) .*Use kd or dist .*without them\.'
    with pytest.raises(ValueError, match=message):
        build(loss, train_cfg=MIXUP, data_preprocessor=dict(num_classes=10))


def test_crd_takes_no_mixed_images():
    """Their embeddings would be kept as those of the first image."""
    with pytest.raises(ValueError, match='loss_crd: CRDLoss needs .* mix classes'):
        contrastive(train_cfg=MIXUP, data_preprocessor=dict(num_classes=10))
    model = contrastive()
    # Labels of several people are none of its business.
    data = scored(0.6, 0.4, *[0] * 8)
    for i, sample in enumerate(data['data_samples']):
        indices = torch.tensor([i, 5, 6, 7], dtype=torch.int)
        sample.set_field(indices, 'contrast_sample_idxs')
        sample.set_field(torch.tensor(i), 'sample_idx')
        sample.set_field(9, 'num_samples', field_type='metainfo')
    assert losses_of(model, copy.deepcopy(data))['distill.loss_crd'].isfinite()
    model.architecture.data_preprocessor.batch_augments = lambda *pair: pair
    with pytest.raises(ValueError, match='CRDLoss .*batch augments of the student'):
        losses_of(model, data)


def test_others_are_left_alone():
    data = scored(0.6, 0.4, *[0] * 8)
    mixed = build(KD, train_cfg=MIXUP, data_preprocessor=dict(num_classes=10))
    assert losses_of(mixed, copy.deepcopy(data))['distill.loss_logits'].isfinite()
    for model, given in ((build(KD), data), (build(KD), ignored()), (mixed, batch())):
        assert losses_of(model, given)['student.loss'].isfinite()


def test_augments_that_mix_no_classes():
    """Those of detectors resize whole batches."""
    detector = nn.Module()
    detector.data_preprocessor = nn.Module()
    detector.data_preprocessor.batch_augments = nn.ModuleList([nn.Identity()])
    refuse_mixing('NKDLoss', detector, 'the student')


@pytest.mark.parametrize(
    'entries',
    [(0.6, 0.4, *[0] * 8), (0.55, 0.37, *[0.01] * 8), (1, 1, *[0] * 8)],
    ids=['mixed', 'mixed and smoothed', 'two classes'],
)
def test_scores_of_several_classes(entries):
    model = build(NKD)
    losses_of(model, scored())
    message = r'NKDLoss needs one class an image\. The image images/2\.png has a '
    for one in (model, copy.deepcopy(model)):
        with pytest.raises(ValueError, match=message + '`gt_score` of several'):
            losses_of(one, scored(*entries))
    # Without training nothing is learned from them.
    model.data_preprocessor(scored(*entries), False)


@pytest.mark.parametrize(
    'entries',
    [(1, *[0] * 9), (0.91, *[0.01] * 9), (0.9 + 0.1 / 10, *[0.1 / 10] * 9)],
)
def test_scores_of_one_class(entries):
    loss = losses_of(build(NKD), scored(*entries))['distill.loss_logits']
    assert loss.isfinite()


@pytest.mark.parametrize('loss', [DKD, WSLD], ids=['dkd', 'wsld'])
def test_label_to_ignore(loss):
    """They index with it: an error without a name, on GPUs the end."""
    model = build(loss)
    assert losses_of(model, batch())['distill.loss_logits'].isfinite()
    message = 'cannot leave out an image. The image images/1.png has the label -100'
    with pytest.raises(ValueError, match=f'{message}.*Use mmfakd.NKDLoss'):
        losses_of(model, ignored())


def test_nkd_leaves_it_out():
    losses = losses_of(build(NKD), ignored())
    assert all(value.isfinite() for value in losses.values())


def test_plain_student():
    """What is built once may be looked at by several."""
    student = MODELS.build(classifier())
    hooks = student.data_preprocessor._forward_pre_hooks
    feature_distill(architecture=student)
    assert len(hooks) == 1


def hook(*recipes, **attributes):
    """A hook like mmpretrain's SwitchRecipeHook, built."""
    made = type('SwitchRecipeHook', (), attributes)()
    made.schedule = {epoch: dict(batch_augments=one) for epoch, one in recipes}
    return made


def test_hooks_that_switch_mixing_on():
    """At the start, and not in the middle of a training."""
    later = hook((1, None), (200, MIXUP))
    message = r'NKDLoss needs one class .* of the hook SwitchRecipeHook \(`schedule`, '
    message += r'from epoch 200\) \(mixup'
    distiller = build(NKD).distiller
    for epochs in (200, None):
        with pytest.raises(ValueError, match=message):
            check_later_mixing(distiller, [later], epochs)
    check_later_mixing(build(KD).distiller, [later], 300)
    off = hook((1, None)), type('Other', (), dict(schedule='cosine'))(), object()
    check_later_mixing(distiller, [hook((200, MIXUP)), *off], 199)
    schedule = [dict(action_epoch=3, batch_augments=MIXUP)]
    cfg = dict(type='mmpretrain.SwitchRecipeHook', schedule=schedule)
    with pytest.raises(ValueError, match='--method dkd .*SwitchRecipeHook.*epoch 3'):
        refuse_later_mixing('--method dkd', [cfg], 10)


def test_another_kind_of_schedule():
    """A hook of one's own may have one of anything."""
    own = hook()
    own.schedule = dict(stem=dict(until=1), head=dict(batch_augments=MIXUP))
    listed = dict(type='Own', schedule=[dict(until=1), dict(action_epoch='last')])
    check_later_mixing(build(NKD).distiller, [own, listed], 3)


def test_mixing_after_the_distillation():
    """The last epoch that is distilled is the `stop_epoch`, counted from 1."""
    distiller, stop = build(NKD).distiller, StopDistillHook(stop_epoch=4)
    for epochs in (9, None):
        check_later_mixing(distiller, [hook((5, MIXUP)), stop], epochs)
        with pytest.raises(ValueError, match='from epoch 4'):
            check_later_mixing(distiller, [hook((4, MIXUP)), stop], epochs)
    check_later_mixing(distiller, [hook((3, MIXUP)), stop], 2)


def test_batches_that_are_mixed_after_the_distillation():
    model = build(NKD, data_preprocessor=dict(num_classes=10))
    losses_of(model, batch())
    assert model.distillation_stopped is False
    model.distillation_stopped = True
    for one in (model, copy.deepcopy(model)):
        losses_of(one, scored(0.6, 0.4, *[0] * 8))
        one.data_preprocessor.batch_augments = lambda *pair: pair
        losses_of(one, batch())
    model.distillation_stopped = False
    with pytest.raises(ValueError, match='the batch augments of the student .*mix'):
        losses_of(model, batch())


def test_mixing_that_is_switched_on_unseen():
    model = build(NKD, data_preprocessor=dict(num_classes=10))
    losses_of(model, batch())
    model.architecture.data_preprocessor.batch_augments = lambda *pair: pair
    with pytest.raises(ValueError, match='the batch augments of the student .*mix'):
        losses_of(model, batch())
    # Nothing is mixed without training.
    model.data_preprocessor(batch(), False)


def test_the_first_step_looks_at_the_hooks(monkeypatch):
    runner = SimpleNamespace(hooks=[hook((7, MIXUP))])
    loop = SimpleNamespace(runner=runner, max_epochs=9)
    monkeypatch.setattr(feature_distill_module, 'running_loop', lambda: loop)
    monkeypatch.setattr(feature_distill_module, 'check_counters', lambda loop: None)
    with pytest.raises(ValueError, match='hook SwitchRecipeHook .*from epoch 7'):
        losses_of(build(NKD), batch())
    assert losses_of(build(KD), batch())['distill.loss_logits'].isfinite()
