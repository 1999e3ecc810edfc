# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Our parts under mmrazor's own algorithms, and ours with models from every side."""

import copy

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope

from tests.helpers.toy import (
    batch,
    classifier,
    layer_distiller,
    review_distiller,
    step,
    without_gradient,
)

RESNET = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
CHANNELS = [64, 128, 256, 512, 512]
RESNET_LEVELS = [*[f'backbone.layer{i}' for i in (1, 2, 3, 4)], 'neck.gap']


def train_two_steps(model, data):
    """Two optimizer steps as the runner takes them; every parameter learns."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    wrapper = OptimWrapper(optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    logs = [model.train_step(copy.deepcopy(data), wrapper) for _ in range(2)]
    assert all(torch.isfinite(log['loss']) for log in logs)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    step(model, copy.deepcopy(data))
    assert [n for n, p in trained.items() if p.grad is None] == []
    # A batch norm takes a bias before it away: its gradient is zero.
    can_move = [n for n in trained if not n.endswith('transform.local.bias')]
    return logs, [n for n in can_move if torch.equal(trained[n], before[n])]


@pytest.mark.parametrize('distiller', [review_distiller(), layer_distiller()])
def test_single_teacher_distill(distiller):
    model = MODELS.build(
        ConfigDict(
            type='mmrazor.SingleTeacherDistill',
            architecture=classifier(),
            teacher=classifier(width=8),
            distiller=distiller,
        )
    )
    logs, still = train_two_steps(model, batch())
    assert still == []
    assert any(key.startswith('distill.') for key in logs[0])


def neck_review(scope_type='mmfakd.ReviewDistiller'):
    return dict(
        type=scope_type,
        student_levels='neck',
        teacher_levels='neck',
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=[256] * 5,
            out_channels=[256] * 5,
            mid_channels=16,
            transform=dict(type='mmfakd.FrequencyAttention', modes=4),
        ),
    )


def neck_stock():
    """The review connector in mmrazor's own distiller: one record, a tuple."""
    recorders = dict(neck=dict(type='mmrazor.ModuleOutputs', source='neck'))
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=copy.deepcopy(recorders),
        connectors=dict(review=neck_review()['connector']),
        distill_losses=dict(loss_fft=dict(type='mmfakd.FFTFeatureLoss')),
        loss_forward_mappings=dict(
            loss_fft=dict(
                s_feature=dict(recorder='neck', from_student=True, connector='review'),
                t_feature=dict(recorder='neck', from_student=False),
            )
        ),
    )


def detector():
    """A stock detector's config without the download of its backbone."""
    return dict(cfg_path=RETINANET, backbone=dict(init_cfg=None))


def detection_batch():
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [[3, 128, 128], [3, 128, 160]], num_classes=80)


@pytest.mark.parametrize('distiller', [neck_review, neck_stock])
def test_fpn_teacher_distill(distiller):
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    from mmfakd.utils import resolve_model_cfg

    student, _ = resolve_model_cfg(detector())
    model = MODELS.build(
        ConfigDict(
            type='mmrazor.FpnTeacherDistill',
            architecture=student,
            teacher=copy.deepcopy(student),
            distiller=distiller(),
        )
    )
    logs, still = train_two_steps(model, detection_batch())
    assert any(key.startswith('distill.') for key in logs[0])
    # The stock student freezes its stem; all else learns.
    assert still == []


def test_feature_distill_of_detectors():
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    model = MODELS.build(
        ConfigDict(
            type='mmfakd.FeatureDistill',
            architecture=detector(),
            teacher=detector(),
            distiller=neck_review(),
        )
    )
    _, still = train_two_steps(model, detection_batch())
    assert still == []
    assert model._teacher.mode == 'neck'


def by_cfg_path(role):
    return dict(cfg_path=RESNET)


def by_scope(role):
    return classifier(width=4 if role == 'student' else 8)


def by_inheritance(role, tmp_path):
    path = tmp_path / f'{role}.py'
    inner = 'model = dict(_delete_=True, inner={{_base_.model}})'
    path.write_text(f'_base_ = {RESNET!r}\n{inner}\n')
    return Config.fromfile(path).model.inner


@pytest.mark.parametrize('way', ['cfg_path', 'scope', 'inheritance'])
@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmrazor', 'mmfakd', None])
def test_scopes(scope, way, tmp_path):
    if scope is not None:
        init_default_scope(scope)
    make = {
        'cfg_path': by_cfg_path,
        'scope': by_scope,
        'inheritance': lambda role: by_inheritance(role, tmp_path),
    }[way]
    if way == 'scope':
        distiller, size = review_distiller(), 8
    else:
        size = 32
        distiller = dict(
            type='mmfakd.ReviewDistiller',
            student_levels=RESNET_LEVELS,
            teacher_levels=RESNET_LEVELS,
            connector=dict(
                type='mmfakd.ReviewConnector',
                in_channels=CHANNELS,
                out_channels=CHANNELS,
                mid_channels=8,
                sizes=[8, 4, 2, 1, 1],
            ),
        )
    model = MODELS.build(
        ConfigDict(
            type='mmfakd.FeatureDistill',
            architecture=make('student'),
            teacher=make('teacher'),
            distiller=distiller,
        )
    )
    step(model, batch(count=8, size=size))
    assert without_gradient(model) == []


SIX_LINES = """
_base_ = {base!r}
levels = [*[f'backbone.layer{{i}}' for i in (1, 2, 3, 4)], 'neck.gap']
connector = dict(type='mmfakd.ReviewConnector', in_channels=[64, 128, 256, 512, 512], out_channels=[64, 128, 256, 512, 512], sizes=[56, 28, 14, 7, 1])
distiller = dict(type='mmfakd.ReviewDistiller', student_levels=levels, teacher_levels=levels, connector=connector)
model = dict(_delete_=True, type='mmfakd.FeatureDistill', architecture={{{{_base_.model}}}}, teacher=dict(cfg_path='mmpretrain::resnet/resnet34_8xb32_in1k.py', pretrained=True), distiller=distiller)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3), student=dict(type='mmfakd.StudentCheckpointHook'))
"""  # noqa: E501


def runner_model(path, work_dir):
    """The model as a Runner makes it from a config file, without data."""
    from mmengine.runner import Runner

    cfg = Config.fromfile(path)
    for key in list(cfg):
        if key.split('_')[0] in ('train', 'val', 'test', 'optim', 'param'):
            cfg.pop(key)
    cfg.work_dir = work_dir
    return Runner.from_cfg(cfg).model


@pytest.mark.parametrize(
    'base', [RESNET, 'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py']
)
def test_six_lines_of_the_readme(base, tmp_path, work_dir):
    """A stock config, and one with mixup, CutMix and its own losses."""
    from pathlib import Path

    import numpy as np

    text = SIX_LINES.format(base=base)
    readme = (Path(__file__).parents[1] / 'README.md').read_text()
    if base == RESNET:
        assert text.strip() in readme, 'the README shows other lines'
    else:
        narrow = 'in_channels=[64, 128, 256, 512, 512]'
        wide = 'mid_channels=16, in_channels=[256, 512, 1024, 2048, 2048]'
        text = text.replace(narrow, wide)
    path = tmp_path / 'six_lines.py'
    path.write_text(text)
    model = runner_model(path, work_dir)
    assert model.teacher_ckpt.startswith('https://')

    stock_path = tmp_path / 'stock.py'
    stock_path.write_text(f'_base_ = {base!r}\n')
    stock = runner_model(stock_path, work_dir)
    data = batch(count=2, size=224, num_classes=1000)
    prepared = []
    for owner in (stock, model):
        np.random.seed(0)
        torch.manual_seed(0)
        prepared.append(owner.data_preprocessor(copy.deepcopy(data), True))
    torch.testing.assert_close(prepared[0]['inputs'], prepared[1]['inputs'])
    keys = [set(p['data_samples'][0].all_keys()) for p in prepared]
    assert keys[0] == keys[1]
    if 'gt_score' in keys[0]:
        scores = [[s.gt_score for s in p['data_samples']] for p in prepared]
        torch.testing.assert_close(*scores)

    seen = []
    for part in (model.architecture.backbone, model.teacher.backbone):
        part.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    losses = model(**prepared[1], mode='loss')
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], prepared[1]['inputs'])
    assert sum(key.startswith('distill.loss_level') for key in losses) == 5
    assert all(torch.isfinite(v).all() for v in losses.values())
