# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import numpy as np
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmrazor.models.distillers import OFDDistiller
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from mmfakd.models.distillers import OverhaulDistiller
from tests.helpers.toy import (
    POOL,
    batch,
    classifier,
    convolution,
    feature_distill,
    losses_of,
    step,
    without_gradient,
)

STAGES = (1, 2, 3)
NORMS = [f'backbone.layer{i}.1.bn2' for i in STAGES]
WEIGHTS = (0.25, 0.5, 1.0)


def pre_activation(stage):
    return dict(
        recorder=dict(
            type='mmrazor.ModuleInputs', source=f'backbone.layer{stage}.1.relu'
        ),
        record_idx=1,
        data_idx=0,
    )


def distiller(**kwargs):
    """OFD for a pair of ``classifier``, whose last block has one ReLU, called twice."""
    cfg = dict(
        type='mmfakd.OverhaulDistiller',
        student_levels=[pre_activation(i) for i in STAGES],
        teacher_levels=[pre_activation(i) for i in STAGES],
        margins=NORMS,
        student_connectors=[convolution(2 << i, 4 << i, act_cfg=None) for i in STAGES],
        level_loss=[dict(type='mmrazor.OFDLoss', loss_weight=w) for w in WEIGHTS],
    )
    return dict(cfg, **kwargs)


def trained_teacher(**kwargs):
    """A teacher whose batch norms scale and shift, some to the far side."""
    teacher = MODELS.build(classifier(width=8, **kwargs))
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.5)
            nn.init.normal_(module.bias, 0, 1)
    return teacher


def margins_of(model):
    return [model.distiller.connectors[f'teacher{i}'][-1].margin for i in range(3)]


def naive_margin(scale, shift):
    """Mean of the negative part of a normal distribution, by quadrature."""
    scale = abs(scale)
    below = norm.cdf(0, shift, scale)
    if below <= 1e-3:
        return -3 * scale
    # Beyond ten deviations nothing is left.
    low = min(shift, 0) - 10 * scale
    weighted = quad(lambda x: x * norm.pdf(x, shift, scale), low, 0, limit=200)[0]
    return weighted / below


def naive_loss(student, teacher, margin):
    """Partial L2 against the teacher's feature, cut off at the margin."""
    total = 0.0
    for n, c, h, w in np.ndindex(*student.shape):
        target = max(teacher[n, c, h, w], margin[c])
        value = student[n, c, h, w]
        if not (value <= target <= 0):
            total += (value - target) ** 2
    return total / len(student) / 1000


def records(model, data):
    """The features that the distiller compares, and the losses."""
    seen = {}
    for i in range(3):
        loss = model.distiller.distill_losses[f'loss_level{i}']
        loss.register_forward_hook(
            lambda _, args, kwargs, out, i=i: seen.update({i: (kwargs, out)}),
            with_kwargs=True,
        )
    maps = {}
    for i in STAGES:
        relu = model.teacher.get_submodule(f'backbone.layer{i}.1.relu')
        relu.register_forward_pre_hook(
            lambda _, args, i=i: maps.setdefault(i, []).append(args[0])
        )
    losses_of(model, data)
    return seen, [maps[i][1] for i in STAGES]


def test_margins_are_means_of_negative_values():
    teacher = trained_teacher()
    model = feature_distill(teacher=teacher, distiller=distiller())
    for name, margin in zip(NORMS, margins_of(model)):
        layer = teacher.get_submodule(name)
        expected = [
            naive_margin(s, m)
            for s, m in zip(layer.weight.tolist(), layer.bias.tolist())
        ]
        assert margin.shape == (1, len(expected), 1, 1)
        np.testing.assert_allclose(margin.flatten().numpy(), expected, rtol=1e-5)
        stock = OFDDistiller()._get_margin_from_BN(layer)
        torch.testing.assert_close(margin, stock)


def test_channels_without_scale_keep_their_shift():
    """Where mmrazor divides by zero: the channel is constant."""
    layer = nn.BatchNorm2d(3)
    layer.weight.data.zero_()
    layer.bias.data = torch.tensor([-0.5, 0.0, 2.0])
    margin = OverhaulDistiller._get_margin_from_BN(None, layer)
    assert margin.flatten().tolist() == pytest.approx([-0.5, 0, 0])


def test_loss_is_the_partial_distance_to_the_pre_activation():
    model = feature_distill(teacher=trained_teacher(), distiller=distiller())
    seen, teacher_maps = records(model, batch(count=2))
    for i, weight in enumerate(WEIGHTS):
        features, loss = seen[i]
        raw = teacher_maps[i]
        assert raw.min() < 0
        margin = margins_of(model)[i].flatten().tolist()
        student = features['s_feature'].detach().numpy()
        expected = naive_loss(student, raw.numpy(), margin)
        assert loss.item() == pytest.approx(weight * expected, rel=1e-4)


def test_every_parameter_gets_a_gradient():
    model = feature_distill(teacher=trained_teacher(), distiller=distiller())
    step(model, batch())
    assert without_gradient(model) == []


def test_larger_maps_are_pooled_before_the_margin():
    student = classifier()
    student['backbone']['strides'] = (2, 2, 2)
    model = feature_distill(
        architecture=student,
        teacher=trained_teacher(),
        distiller=distiller(teacher_connectors=POOL),
    )
    seen, teacher_maps = records(model, batch())
    for i, margin in enumerate(margins_of(model)):
        pooled = nn.functional.avg_pool2d(teacher_maps[i], 2)
        expected = torch.maximum(pooled, margin)
        torch.testing.assert_close(seen[i][0]['t_feature'], expected)


def test_margins_follow_the_weights_that_are_loaded(tmp_path):
    """They come after the teacher's file, as in a run and in its resumption."""
    trained = trained_teacher()
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=trained.state_dict()), path)
    expected = margins_of(feature_distill(teacher=trained, distiller=distiller()))
    model = feature_distill(distiller=distiller(), teacher_ckpt=str(path))
    model.init_weights()
    step(model, batch())
    for ours, theirs in zip(margins_of(model), expected):
        assert torch.equal(ours, theirs)


def test_margins_follow_casts_and_devices():
    model = feature_distill(teacher=trained_teacher(), distiller=distiller())
    data = model.data_preprocessor(batch(), True)
    for dtype in (torch.float64, torch.float32):
        model.to(dtype)
        assert {m.dtype for m in margins_of(model)} == {dtype}
        losses = model(data['inputs'].to(dtype), data['data_samples'], mode='loss')
        assert losses['distill.loss_level0'].dtype == dtype
        assert {m.dtype for m in margins_of(model)} == {dtype}
    assert {m.device.type for m in margins_of(model.to('meta'))} == {'meta'}


def test_margins_are_not_in_checkpoints_and_do_not_disturb_averages():
    model = feature_distill(teacher=trained_teacher(), distiller=distiller())
    assert not any('margin' in key for key in model.state_dict())
    averaged = ExponentialMovingAverage(model)
    buffers = [name for name, _ in averaged.module.named_buffers()]
    step(model, batch())
    averaged.update_parameters(model)
    assert [name for name, _ in model.named_buffers()] == buffers
    for ours, theirs in zip(margins_of(averaged.module), margins_of(model)):
        assert torch.equal(ours, theirs)


def test_copies_have_their_own_margins():
    model = feature_distill(teacher=trained_teacher(), distiller=distiller())
    step(model, batch())
    copied = copy.deepcopy(model)
    for ours, theirs in zip(margins_of(copied), margins_of(model)):
        assert torch.equal(ours, theirs) and ours is not theirs


@pytest.mark.parametrize(
    'algorithm', ['SingleTeacherDistill', 'OverhaulFeatureDistillation']
)
def test_under_the_stock_algorithms(algorithm):
    teacher = trained_teacher()
    ours = feature_distill(teacher=teacher, distiller=distiller())
    stock = feature_distill(
        type=f'mmrazor.{algorithm}', teacher=teacher, distiller=distiller()
    )
    for a, b in zip(margins_of(stock), margins_of(ours)):
        assert torch.equal(a, b)
    step(stock, batch())


def wide_resnet(width):
    """Its stages end before a norm and an activation: what is recorded is a norm."""
    return dict(
        classifier(),
        backbone=dict(type='mmrazor.WideResNet', depth=10, widen_factor=width),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=64 * width),
    )


def wide_teacher(norms):
    """A built model, with shifts that its margins tell."""
    teacher = MODELS.build(wide_resnet(2))
    for name in norms:
        nn.init.normal_(teacher.get_submodule(name).bias)
    return teacher


WIDE_NORMS = ['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn1']


def norm_connectors():
    return [convolution(c, 2 * c, act_cfg=None) for c in (16, 32, 64)]


def stock_distiller(norms, convs):
    """OFD in the words of mmrazor's distiller."""
    losses = [dict(type='mmrazor.OFDLoss', loss_weight=w) for w in WEIGHTS]
    return dict(
        type='mmrazor.OFDDistiller',
        student_recorders={
            f'r{i}': dict(type='mmrazor.ModuleOutputs', source=n)
            for i, n in enumerate(norms)
        },
        teacher_recorders={
            f'r{i}': dict(type='mmrazor.ModuleOutputs', source=n)
            for i, n in enumerate(norms)
        },
        connectors={
            **{f'student{i}': cfg for i, cfg in enumerate(convs)},
            **{f't{i}': dict(type='mmrazor.OFDTeacherConnector') for i in range(3)},
        },
        distill_losses={f'loss_level{i}': cfg for i, cfg in enumerate(losses)},
        loss_forward_mappings={
            f'loss_level{i}': dict(
                s_feature=dict(
                    recorder=f'r{i}', from_student=True, connector=f'student{i}'
                ),
                t_feature=dict(recorder=f'r{i}', from_student=False, connector=f't{i}'),
            )
            for i in range(3)
        },
    )


def test_stock_distiller_of_recorded_norms():
    """mmrazor's own, whose margins nobody else would set."""
    norms = WIDE_NORMS
    teacher = wide_teacher(norms)
    convs = norm_connectors()
    stock = stock_distiller(norms, convs)
    ours = distiller(
        student_levels=norms,
        teacher_levels=norms,
        margins=norms,
        student_connectors=convs,
    )
    models = [
        feature_distill(architecture=wide_resnet(1), teacher=teacher, distiller=d)
        for d in (ours, stock)
    ]
    models[1].load_state_dict(models[0].state_dict())
    data = batch(size=16)
    a, b = (losses_of(model, copy.deepcopy(data)) for model in models)
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key])
    step(models[0], data)
    assert without_gradient(models[0]) == []


def test_stock_margins_follow_the_weights_that_are_loaded(tmp_path):
    trained = wide_teacher(WIDE_NORMS)
    path = tmp_path / 'teacher.pth'
    torch.save(trained.state_dict(), path)
    model = feature_distill(
        architecture=wide_resnet(1),
        teacher=wide_resnet(2),
        teacher_ckpt=str(path),
        distiller=stock_distiller(WIDE_NORMS, norm_connectors()),
    )
    model.init_weights()
    step(model, batch(size=16))
    for i, name in enumerate(WIDE_NORMS):
        margin = model.distiller.connectors[f't{i}'].margin
        expected = OFDDistiller()._get_margin_from_BN(trained.get_submodule(name))
        torch.testing.assert_close(margin, expected)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(margins=NORMS[:2]), 'margins: got .* for 3 teacher levels'),
        (dict(margins=None), 'margins: got None for 3 teacher levels'),
        (dict(margins=[*NORMS[:2], None]), 'margins: got .* for 3 teacher levels'),
        (dict(margins=NORMS[:1], teacher_levels=None), 'teacher_levels is empty'),
        (dict(margins=NORMS[0]), 'margins: got .* for 3 teacher levels'),
        (
            dict(margins=[*NORMS[:2], 'backbone.layer3.1.bn9']),
            r"'backbone.layer3.1.bn9' is no batch norm.*'backbone.layer3.1.bn",
        ),
        (
            dict(margins=[*NORMS[:2], 'backbone.layer3.1.relu']),
            "'backbone.layer3.1.relu' is no batch norm",
        ),
        (dict(teacher_connectors=[POOL]), 'teacher_connectors: .*3 levels'),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        feature_distill(distiller=distiller(**changes))


def test_a_norm_without_scale():
    teacher = trained_teacher()
    teacher.backbone.layer3[1].bn2 = nn.BatchNorm2d(32, affine=False)
    with pytest.raises(ValueError, match='no batch norm with scale and shift'):
        feature_distill(teacher=teacher, distiller=distiller())
