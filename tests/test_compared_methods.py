# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The methods that FAM-KD is compared with: one step each, and the published formulas.

Distillers come from the shipped bases where they fit every pair.
"""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from tests.helpers.tiny_runs import run_config, student, train
from tests.helpers.toy import (
    LEVELS,
    POOL,
    batch,
    convolution,
    feature_distill,
    losses_of,
    step,
    without_gradient,
)

BASES = Path(__file__).parents[1] / 'configs' / '_base_' / 'distillers'
IMAGES = 40


def base(name, key=None):
    """A base's distiller, or the parts of one."""
    return Config.fromfile(BASES / f'{name}.py')[key or name].to_dict()


def pre_activations(last_block):
    return [
        dict(
            recorder=dict(
                type='mmrazor.ModuleInputs',
                source=f'backbone.layer{i}.{last_block}.relu',
            ),
            record_idx=1,
            data_idx=0,
        )
        for i in (1, 2, 3)
    ]


def kd(half):
    return base('kd')


def dkd(half):
    return dict(
        base('dkd'),
        type='mmfakd.WarmupDistiller',
        distill_losses=dict(
            loss_dkd=dict(type='mmrazor.DKDLoss', tau=4, alpha=1, beta=2)
        ),
    )


def rkd(half):
    return base('rkd')


def at(half):
    return dict(
        type='mmfakd.LevelDistiller',
        student_levels=LEVELS[:3],
        teacher_levels=LEVELS[:3],
        teacher_connectors=POOL if half else None,
        level_loss=dict(type='mmrazor.ATLoss', loss_weight=1000),
    )


def fitnet(half):
    up = dict(conv_cfg=dict(type='deconv'), kernel_size=4, stride=2, padding=1)
    return dict(
        type='mmfakd.LevelDistiller',
        student_levels='backbone.layer2',
        teacher_levels='backbone.layer2',
        student_connectors=convolution(8, 16, **(up if half else {})),
        level_loss=base('fitnet', 'fitnet_loss'),
    )


def ofd(half):
    return dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=pre_activations(1 if half else 0),
        teacher_levels=pre_activations(1),
        margins=[f'backbone.layer{i}.1.bn2' for i in (1, 2, 3)],
        student_connectors=[convolution(c, 2 * c, act_cfg=None) for c in (4, 8, 16)],
        teacher_connectors=POOL if half else None,
        level_loss=[
            dict(type='mmrazor.OFDLoss', loss_weight=w) for w in (0.25, 0.5, 1.0)
        ],
    )


def crd(half, student_channels=16, teacher_channels=32):
    cfg = dict(
        base('crd'),
        type='mmrazor.ConfigurableDistiller',
        connectors=dict(
            student=dict(
                type='mmrazor.CRDConnector', dim_in=student_channels, dim_out=128
            ),
            teacher=dict(
                type='mmrazor.CRDConnector', dim_in=teacher_channels, dim_out=128
            ),
        ),
    )
    cfg['distill_losses']['loss_crd'].update(neg_num=12, sample_n=IMAGES)
    return cfg


METHODS = (kd, dkd, rkd, at, fitnet, ofd, crd)


def network(backbone, width):
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(backbone, stem_channels=width, base_channels=width),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=4 * width,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )


def build(method, half=False):
    """A pair at 16 x 16 pixels; the maps of a `half` student are half as large."""
    small = dict(type='mmfakd.CIFARResNet', depth=8)
    if half:
        stages = dict(num_stages=3, strides=(2, 2, 2), dilations=(1, 1, 1))
        small = dict(type='ResNet_CIFAR', depth=18, out_indices=(2,), **stages)
    teacher = MODELS.build(network(dict(type='mmfakd.CIFARResNet', depth=14), 8))
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5)
            nn.init.normal_(module.bias, 0, 0.5)
    nn.init.normal_(teacher.head.fc.weight)
    return feature_distill(
        architecture=network(small, 4), teacher=teacher, distiller=method(half)
    )


def data_of(count=6):
    data = batch(count=count, size=16)
    for i, sample in enumerate(data['data_samples']):
        # What mmfakd.ContrastiveSamples adds.
        sample.set_field(torch.tensor(i), 'sample_idx')
        sample.set_field((torch.arange(13) * 3 + i) % IMAGES, 'contrast_sample_idxs')
        sample.set_field(IMAGES, 'num_samples', field_type='metainfo')
    return data


def distill(method, half=False):
    """Run a step.

    Returns:
        Its distillation losses, and functions that look up the outputs of a layer of
        the student and of the teacher.
    """
    model = build(method, half)
    outputs = {}
    for role in ('architecture', 'teacher'):
        for name, module in getattr(model, role).named_modules():
            module.register_forward_hook(
                lambda _, args, out, key=(role, name): outputs.update({key: out})
            )
    losses = losses_of(model, data_of())
    losses = {
        k[len('distill.') :]: v for k, v in losses.items() if k.startswith('distill.')
    }
    return (
        losses,
        lambda name: outputs['architecture', name].detach().double(),
        lambda name: outputs['teacher', name].double(),
        model,
    )


@pytest.mark.parametrize('half', [False, True], ids=['equal', 'half'])
@pytest.mark.parametrize('method', METHODS)
def test_one_step_reaches_every_parameter(method, half):
    model = build(method, half)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = step(model, data_of())
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert without_gradient(model) == []
    optimizer.step()
    assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []


def kl(p, q):
    return sum(a * (a / b).log() for a, b in zip(p, q))


def test_kd_formula():
    """T squared times KL(teacher, student), averaged over images, times 0.9."""
    losses, student, teacher, _ = distill(kd)
    expected = [
        16 * kl((t / 4).softmax(0), (s / 4).softmax(0))
        for s, t in zip(student('head.fc'), teacher('head.fc'))
    ]
    expected = 0.9 * torch.stack(expected).mean()
    torch.testing.assert_close(losses['loss_kl'].double(), expected, rtol=1e-5, atol=0)


def test_dkd_formula():
    """TCKD + beta NCKD, times T squared, in the first of 20 epochs."""
    losses, student, teacher, _ = distill(dkd)
    terms = []
    for label, (s, t) in enumerate(zip(student('head.fc'), teacher('head.fc'))):
        target = [(z / 4).softmax(0)[label] for z in (t, s)]
        binary = [torch.stack([p, 1 - p]) for p in target]
        others = [
            (torch.cat([z[:label], z[label + 1 :]]) / 4).softmax(0) for z in (t, s)
        ]
        terms.append(16 * (kl(*binary) + 2 * kl(*others)))
    expected = torch.stack(terms).mean() / 20
    torch.testing.assert_close(losses['loss_dkd'].double(), expected, rtol=1e-4, atol=0)
    assert losses['warmup'].item() == pytest.approx(1 / 20)


def huber(values, targets):
    difference = (values - targets).abs()
    return torch.where(difference < 1, difference**2 / 2, difference - 0.5)


def test_rkd_formula():
    """Distances of pairs over their mean, and cosines of triples, unnormalised."""
    losses, student, teacher, _ = distill(rkd)
    distances, angles = [], []
    for feature in (student('neck.gap').flatten(1), teacher('neck.gap').flatten(1)):
        count = range(len(feature))
        pairs = torch.stack(
            [(feature[i] - feature[j]).norm() for i in count for j in count]
        )
        distances.append(pairs / pairs[pairs > 0].mean())
        edges = {
            (i, j): F.normalize(feature[i] - feature[j], dim=0)
            for i in count
            for j in count
        }
        angles.append(
            torch.stack(
                [edges[k, i] @ edges[k, j] for i in count for j in count for k in count]
            )
        )
    for name, weight, values in (
        ('loss_distance', 25, distances),
        ('loss_angle', 50, angles),
    ):
        expected = weight * huber(*values).mean()
        torch.testing.assert_close(losses[name].double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize('half', [False, True], ids=['equal', 'half'])
def test_at_formula(half):
    """Mean squared distance of unit attention maps, times 1000, at every stage."""
    losses, student, teacher, _ = distill(at, half)
    assert sorted(losses) == ['loss_level0', 'loss_level1', 'loss_level2']
    for i, name in enumerate(LEVELS[:3]):
        s, t = student(name), teacher(name)
        if half:
            assert t.shape[2] == 2 * s.shape[2]
            t = F.adaptive_avg_pool2d(t, s.shape[2:])
        maps = [f.square().sum(1).flatten(1) for f in (s, t)]
        unit = [m / m.norm(dim=1, keepdim=True) for m in maps]
        expected = 1000 * (unit[0] - unit[1]).square().mean()
        loss = losses[f'loss_level{i}'].double()
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize('half', [False, True], ids=['equal', 'half'])
def test_fitnet_formula(half):
    """Mean squared error behind a regressor, times 100."""
    losses, student, teacher, model = distill(fitnet, half)
    regressor = copy.deepcopy(model.distiller.connectors['student0']).double()
    regressed = regressor(student('backbone.layer2'))
    assert (regressed >= 0).all()
    expected = 100 * F.mse_loss(regressed, teacher('backbone.layer2'))
    loss = losses['loss_level0'].double()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def test_crd_in_a_training_run(tmp_path):
    """The banks have the size of the data set and are filled within an epoch."""
    model = dict(
        type='mmfakd.FeatureDistill',
        architecture=student(),
        teacher=student(),
        distiller=crd(False, 8, 8),
    )
    cfg = run_config(tmp_path, model, hooks=[dict(type='mmfakd.EpochSeedHook')])
    cfg.train_dataloader.dataset = dict(
        type='mmfakd.ContrastiveSamples',
        dataset=dict(cfg.train_dataloader.dataset, labels_per_class=IMAGES // 10),
        num_negatives=12,
    )
    train(cfg)
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    for name in ('memory_v1', 'memory_v2'):
        bank = state[f'distiller.distill_losses.loss_crd.contrast.{name}']
        # Of unit length, as they do not begin.
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(IMAGES))
