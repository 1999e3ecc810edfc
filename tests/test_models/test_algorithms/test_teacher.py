# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The teacher on its own: outside of the module tree, yet never left behind."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.algorithms import teacher as module
from mmfakd.models.algorithms.teacher import Teacher
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
)
from tests.helpers.within_loop import within_loop


@pytest.fixture
def student():
    return MODELS.build(classifier())


def test_nothing_of_it_is_in_the_tree_around(student):
    around = nn.ModuleList([Teacher(classifier(width=8), student)])
    assert list(around.parameters()) == [] and around.state_dict() == {}
    teacher = around[0]
    assert copy.deepcopy(around)[0].model is teacher.model
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_it_follows_the_tree_around(student):
    around = nn.ModuleList([Teacher(classifier(width=8), student)])
    around.double().train()
    model = around[0].model
    assert next(model.parameters()).dtype == torch.float64
    assert not any(module.training for module in model.modules())
    around.to('meta')
    assert next(model.parameters()).device.type == 'meta'


@pytest.mark.parametrize(
    ('source', 'needed'),
    [
        ('backbone.layer3', ['backbone.']),
        ('neck.gap', ['backbone.', 'neck.']),
        ('head.fc', ['']),
    ],
)
def test_weights_of_what_is_recorded_are_needed(source, needed, student):
    teacher = Teacher(classifier(width=8), student)
    distiller = MODELS.build(layer_distiller(source))
    assert teacher.needed_weights(distiller) == needed
    whole = Teacher(classifier(width=8), student, mode='loss')
    assert whole.needed_weights(distiller) == ['']


def test_a_built_model_has_its_weights(student):
    model = MODELS.build(classifier(width=8))
    before = copy.deepcopy(model.state_dict())
    teacher = Teacher(model, student)
    teacher.fill()
    assert teacher.model is model and teacher.has_weights
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def filled(student, path, weights, needed=('',), part='', **teacher):
    """A teacher whose ``init_cfg``, or that of a part, names a file of these."""
    torch.save(dict(state_dict=weights), path)
    cfg = classifier(width=8, **teacher)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    if part:
        cfg[part]['init_cfg'] = dict(init_cfg, prefix=f'{part}.')
    else:
        cfg['init_cfg'] = init_cfg
    made = Teacher(cfg, student)
    made.fill(needed)
    return made


def test_what_a_pretrained_init_leaves_at_random(student, tmp_path):
    path = tmp_path / 'teacher.pth'
    whole = MODELS.build(classifier(width=8, num_classes=100)).state_dict()
    backbone = {k: v for k, v in whole.items() if k.startswith('backbone.')}
    # The file is of a teacher of other classes, or has no head.
    for weights in (whole, backbone):
        teacher = filled(student, path, weights)
        assert teacher.has_weights and teacher.unfilled == ['head.fc.weight']
        assert 'has nothing that fits 1 of its tensors, head.fc.weight. ' in (
            teacher.partly_at_random
        )
        # Where the backbone is distilled, the head is of no concern.
        assert filled(student, path, weights, ['backbone.']).unfilled == []
    assert filled(student, path, whole, num_classes=100).unfilled == []
    stem = {'backbone.conv1.weight': whole['backbone.conv1.weight']}
    teacher = filled(student, path, stem, ['backbone.'], part='backbone')
    assert len(teacher.unfilled) > 10
    assert 'backbone.conv1.weight' not in teacher.unfilled
    assert not any('bn' in name for name in teacher.unfilled)


def test_norms_that_a_detector_adds_are_no_weights_at_random(student, tmp_path):
    weights = MODELS.build(classifier(width=8)).state_dict()
    weights = {k: v for k, v in weights.items() if '.bn' not in k}
    part = dict(needed=['backbone.'], part='backbone')
    teacher = filled(student, tmp_path / 'teacher.pth', weights, **part)
    assert teacher.has_weights and teacher.unfilled == []


def test_the_first_look_tells_of_it(tmp_path):
    weights = MODELS.build(classifier(width=8, num_classes=100)).state_dict()
    path = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict=weights), path)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    cfg = layer_distiller('head.fc')
    cfg['connectors'] = None
    cfg['loss_forward_mappings']['loss_fam']['s_feature'].pop('connector')
    teacher = classifier(width=8, init_cfg=init_cfg)
    model = feature_distill(teacher=teacher, distiller=cfg)
    model.init_weights()
    losses_of(model, batch())
    assert model.first_step.warnings[0].startswith(
        f'THE TEACHER IS PARTLY AT RANDOM: {path} has nothing that fits 1 of its ten'
    )


def test_weights_of_one_part_are_no_weights(student, tmp_path):
    cfg = classifier(width=8)
    path = str(tmp_path / 'teacher.pth')
    torch.save(MODELS.build(copy.deepcopy(cfg)).state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    cfg['backbone']['init_cfg'] = init_cfg
    # The neck has no parameters.
    found = {'backbone.': True, 'neck.': True, 'head.': False}
    for needed, has in ((['backbone.', part], found[part]) for part in found):
        teacher = Teacher(copy.deepcopy(cfg), student)
        teacher.fill(needed)
        assert teacher.has_weights is has


HEAD = 'mmpretrain.models.heads.LinearClsHead.forward'
BACKBONE = 'mmpretrain.models.backbones.ResNet_CIFAR.forward'


def kd_on(source, kind):
    """Config of a distiller of what a method, or the whole model, gives."""
    recorder = dict(type=f'mmrazor.{kind}', source=source)
    mapping = {
        f'preds_{role}': dict(recorder='l', from_student=role == 'S') for role in 'ST'
    }
    if source == BACKBONE:
        for record in mapping.values():
            record['data_idx'] = 0
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=dict(l=recorder),
        teacher_recorders=dict(l=dict(recorder)),
        distill_losses=dict(loss_kl=dict(type='mmrazor.ChannelWiseDivergence'))
        if source == BACKBONE
        else dict(loss_kl=dict(type='mmrazor.KLDivergence')),
        loss_forward_mappings=dict(loss_kl=mapping),
    )


@pytest.fixture
def backbone_file(tmp_path):
    """A teacher's checkpoint without its head."""
    weights = MODELS.build(classifier(width=4)).state_dict()
    kept = {k: v for k, v in weights.items() if k.startswith('backbone.')}
    torch.save(dict(state_dict=kept), tmp_path / 'backbone.pth')
    return str(tmp_path / 'backbone.pth')


def distilled(distiller, **teacher):
    """A pair of one width, its teacher from a file."""
    ckpt = teacher.pop('teacher_ckpt', None)
    model = feature_distill(
        teacher=teacher.pop('teacher', classifier(width=4)),
        teacher_ckpt=ckpt,
        distiller=distiller,
        calculate_student_loss=distiller['teacher_recorders']['l']['source'] != '',
    )
    model.init_weights()
    return model


@pytest.mark.parametrize(
    ('source', 'kind'), [(HEAD, 'MethodOutputs'), ('', 'ModuleOutputs')]
)
def test_a_method_that_needs_weights_which_are_missing(source, kind, backbone_file):
    """No name of a layer tells of it before the first step."""
    model = distilled(kd_on(source, kind), teacher_ckpt=backbone_file)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r'2 tensors .* are not in it: head\.fc\.weight, head'
        ):
            losses_of(model, batch())


def test_what_needs_the_backbone_alone_is_left_in_peace(backbone_file):
    model = distilled(kd_on(BACKBONE, 'MethodOutputs'), teacher_ckpt=backbone_file)
    losses_of(model, batch())
    assert model._teacher.mode == 'backbone'


@pytest.mark.parametrize('own', [False, True], ids=['file', 'init_cfg'])
def test_what_runs_behind_the_record_is_left_in_peace(own, backbone_file, monkeypatch):
    """The pooled feature is a method's of the head, before its layer."""
    told = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: told.append(text))
    cfg = kd_on('mmpretrain.models.heads.LinearClsHead.pre_logits', 'MethodOutputs')
    teacher = classifier(width=4)
    init_cfg = dict(type='Pretrained', checkpoint=backbone_file, prefix='backbone.')
    if own:
        teacher['backbone']['init_cfg'] = init_cfg
        model = distilled(cfg, teacher=teacher)
    else:
        model = distilled(cfg, teacher_ckpt=backbone_file)
    losses = within_loop(lambda: losses_of(model, batch()), iter=7)
    assert losses['distill.loss_kl'].isfinite()
    assert model._teacher.mode == 'tensor' and model._teacher.has_weights
    assert not any('WEIGHTS' in text for text in told)
    # No hooks are left.
    assert not any(m._forward_pre_hooks for m in model.teacher.backbone.modules())


def test_a_delivery_from_behind_needs_no_weights(backbone_file):
    """What is recorded is the backbone's, however deep the teacher has to run."""
    cfg = kd_on(BACKBONE, 'MethodOutputs')
    path = 'mmpretrain.models.heads.LinearClsHead.pre_logits'
    cfg['distill_deliveries'] = dict(
        d=dict(type='mmrazor.MethodOutputs', max_keep_data=1, method_path=path)
    )
    model = distilled(cfg, teacher_ckpt=backbone_file)
    losses_of(model, batch())
    assert model._teacher.mode == 'tensor'


def test_constant_tensors_that_are_missing_are_no_noise(backbone_file):
    model = distilled(kd_on(HEAD, 'MethodOutputs'), teacher_ckpt=backbone_file)
    for parameter in model.teacher.head.parameters():
        nn.init.zeros_(parameter)
    # The first look would say that such a teacher teaches nothing.
    model.report = False
    losses_of(model, batch())


def test_a_pretrained_backbone_before_a_method_of_the_head(backbone_file, monkeypatch):
    told = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: told.append(text))
    teacher = classifier(width=4)
    teacher['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint=backbone_file, prefix='backbone.'
    )
    model = distilled(kd_on(HEAD, 'MethodOutputs'), teacher=teacher)
    assert model._teacher.has_weights
    resumed = copy.deepcopy(model)
    losses_of(model, batch())
    assert not model._teacher.has_weights
    assert sum('THE TEACHER HAS NO WEIGHTS' in text for text in told) == 1
    assert model.first_step.warnings[0].startswith('THE TEACHER IS AT RANDOM')
    with pytest.raises(RuntimeError, match='resumed at iteration 7.*teacher_ckpt'):
        within_loop(lambda: losses_of(resumed, batch()), iter=7)


def test_a_teacher_at_random_is_told_of_once(monkeypatch):
    """Not once more where a method's record turns out to lie behind its head."""
    told = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: told.append(text))
    losses_of(distilled(kd_on(HEAD, 'MethodOutputs')), batch())
    assert sum('THE TEACHER HAS NO WEIGHTS' in text for text in told) == 1


def test_one_that_is_put_into_training_mode_leaves_it(monkeypatch):
    """A hook that calls ``train()`` of all that it finds would let its norms drift."""
    told = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: told.append(text))
    model = feature_distill(teacher_ckpt=None)
    data = batch()
    usual = losses_of(model, data)
    told.clear()
    before = copy.deepcopy(model.teacher.state_dict())
    for _ in range(2):
        model.teacher.train()
        losses = losses_of(model, data)
    assert not any(part.training for part in model.teacher.modules())
    after = model.teacher.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert usual.keys() == losses.keys()
    (text,) = told
    assert 'put into training mode' in text and 'take `teacher.train()` out' in text
