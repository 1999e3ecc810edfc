# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A plain loop and a runner train the same pair alike."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn

import mmfakd

STEPS, BATCH, SIZE, CLASSES = 4, 4, 32, 7
STAGES = ['layer1', 'layer2', 'layer3', 'layer4']
SGD = dict(lr=0.01, momentum=0.9, weight_decay=1e-4)


def batches():
    generator = torch.Generator().manual_seed(5)
    shape = (STEPS, BATCH, 3, SIZE, SIZE)
    images = torch.rand(shape, generator=generator)
    return images, torch.arange(STEPS * BATCH).view(STEPS, BATCH) % CLASSES


class Samples(torch.utils.data.Dataset):
    def __init__(self):
        images, labels = batches()
        self.images, self.labels = images.flatten(0, 1), labels.flatten()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        sample = DataSample().set_gt_label(int(self.labels[i]))
        return dict(inputs=self.images[i], data_samples=sample)


class KeepLosses(Hook):
    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({k: float(v) for k, v in outputs.items()})


def classifier(backbone, channels):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=CLASSES,
            in_channels=channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )


def under_runner(work_dir, student, teacher, distiller, prefix, backbones):
    """Losses of a runner that starts from the weights of plain modules."""
    hook = KeepLosses()
    runner = Runner(
        model=dict(
            type='mmfakd.FeatureDistill',
            architecture=classifier(backbones[0], 512),
            teacher=classifier(backbones[1], 512),
            distiller=distiller,
            report=False,
        ),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=BATCH,
            dataset=Samples(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=STEPS),
        optim_wrapper=dict(optimizer=dict(type='SGD', **SGD)),
        custom_hooks=[hook],
        default_scope='mmpretrain',
        default_hooks=dict(checkpoint=None),
        log_level='ERROR',
        experiment_name=prefix,
    )
    model = runner.model
    for module, (state, distilled) in (
        (model.architecture, student),
        (model.teacher, teacher),
    ):
        found = module.load_state_dict(named(state, prefix), strict=False)
        assert not found.missing_keys and not found.unexpected_keys
        if distilled is not None:
            loaded = model.load_state_dict(distilled, strict=False)
            assert not loaded.unexpected_keys
    model.init_weights = lambda: None
    runner.train()
    return hook.losses, model


def named(state, prefix):
    """State dict of a plain network as that of a classifier."""
    return {
        key.replace('fc.', 'head.fc.', 1) if key.startswith('fc.') else prefix + key: v
        for key, v in state.items()
    }


def in_plain_loop(student, distillation):
    optimizer = torch.optim.SGD(
        [*student.parameters(), *distillation.parameters()], **SGD
    )
    losses = []
    student.train()
    for images, labels in zip(*batches()):
        own = F.cross_entropy(student(images), labels)
        loss = own + distillation.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        named = {f'distill.{k}': float(v) for k, v in distillation.losses.items()}
        losses.append({'loss': float(loss), 'student.loss': float(own), **named})
    return losses


def compare(plain, runner):
    assert len(plain) == len(runner) == STEPS
    for ours, theirs in zip(plain, runner):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], rel=1e-6), name


def test_torchvision_pair_with_review_and_kd(tmp_path):
    torch.manual_seed(0)
    student = torchvision.models.resnet18(num_classes=CLASSES)
    teacher = torchvision.models.resnet34(num_classes=CLASSES)
    distillation = mmfakd.distill(
        student,
        teacher,
        STAGES,
        STAGES,
        torch.zeros(1, 3, SIZE, SIZE),
        method='fakd-review',
        loss_weight=0.7,
        kd_weight=0.5,
        tau=4.0,
        warmup=3,
        report=False,
    )
    start = copy.deepcopy((student.state_dict(), distillation.state_dict()))
    start[1].pop('distiller.warmup.calls')
    widths = [64, 128, 256, 512]
    logits = dict(logits=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
    distiller = dict(
        type='mmfakd.ReviewDistiller',
        student_levels=[f'backbone.{stage}' for stage in STAGES],
        teacher_levels=[f'backbone.{stage}' for stage in STAGES],
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=widths,
            out_channels=widths,
            sizes=[8, 4, 2, 1],
        ),
        loss_weight=0.7,
        warmup=dict(by_epoch=False, begin=0, end=3),
        student_recorders=logits,
        teacher_recorders=logits,
        distill_losses=dict(
            loss_kd=dict(type='mmrazor.KLDivergence', tau=4.0, loss_weight=0.5)
        ),
        loss_forward_mappings=dict(
            loss_kd=dict(
                preds_S=dict(recorder='logits', from_student=True),
                preds_T=dict(recorder='logits', from_student=False),
            )
        ),
    )
    runner, model = under_runner(
        tmp_path,
        start,
        (teacher.state_dict(), None),
        distiller,
        'backbone.',
        [dict(type='mmpretrain.ResNet', depth=d, norm_eval=False) for d in (18, 34)],
    )
    plain = in_plain_loop(student, distillation)
    assert [step['distill.warmup'] for step in plain] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1]
    )
    compare(plain, runner)
    # The trained weights agree, too, and a checkpoint of either fits the other.
    trained = named(student.state_dict(), 'backbone.')
    for key, value in model.architecture.state_dict().items():
        torch.testing.assert_close(value, trained[key], rtol=1e-5, atol=1e-6)
    ours = {k: v for k, v in model.state_dict().items() if k.startswith('distiller.')}
    missing = distillation.load_state_dict(ours, strict=False)
    assert missing.missing_keys == ['distiller.warmup.calls']
    assert not missing.unexpected_keys


def test_timm_pair_layer_by_layer(tmp_path):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    student = timm.create_model('resnet18', num_classes=CLASSES)
    teacher = timm.create_model('resnet18', num_classes=CLASSES)
    distillation = mmfakd.distill(
        student,
        teacher,
        {'layer2': 'layer2', 'layer4': 'layer4'},
        example_input=torch.zeros(1, 3, SIZE, SIZE),
        method='fakd-layer',
        level_loss=mmfakd.models.losses.FFTFeatureLoss(domain='amplitude'),
        report=False,
    )
    start = copy.deepcopy((student.state_dict(), distillation.state_dict()))
    levels = [f'backbone.timm_model.{name}' for name in ('layer2', 'layer4')]
    distiller = dict(
        type='mmfakd.ReviewDistiller',
        student_levels=levels,
        teacher_levels=levels,
        connector=dict(
            type='mmfakd.LayerwiseConnector',
            in_channels=[128, 512],
            out_channels=[128, 512],
            sizes=[4, 1],
            connector=dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0),
        ),
        level_loss=dict(type='mmfakd.FFTFeatureLoss', domain='amplitude'),
    )
    backbone = dict(type='mmpretrain.TIMMBackbone', model_name='resnet18')
    # It has no head of its own, and neither pools.
    runner, _ = under_runner(
        tmp_path,
        start,
        (teacher.state_dict(), None),
        distiller,
        'backbone.timm_model.',
        [backbone, backbone],
    )
    compare(in_plain_loop(student, distillation), runner)


def test_nothing_of_the_student_changes_without_its_loss():
    """What distils leaves statistics, random state and weights alone."""
    torch.manual_seed(0)
    student, teacher = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    student.train()
    before = copy.deepcopy((student.state_dict(), teacher.state_dict()))
    state = torch.random.get_rng_state()
    made = mmfakd.distill(
        student, teacher, example_input=torch.zeros(2, 3, 4, 4), method='kd'
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert student.training and not teacher.training
    for module, state in zip((student, teacher), before):
        for key, value in module.state_dict().items():
            assert torch.equal(value, state[key]), key
    assert not list(made.parameters()) and not made.state_dict()
