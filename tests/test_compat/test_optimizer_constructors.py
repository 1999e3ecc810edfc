# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Rates and decays of a student's parameters: alone and distilled they are the same."""

import copy
import importlib.util
from functools import partial

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, init_default_scope
from torch import nn

from mmfakd.models.algorithms import FeatureDistill
from tests.helpers.toy import classifier, feature_distill, layer_distiller

STOCK = [
    # Layer-wise decay, by get_layer_depth of the backbones.
    'mmpretrain::mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py',
    'mmpretrain::beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k.py',
    'mmpretrain::mixmim/benchmarks/mixmim-base_8xb128-coslr-100e_in1k.py',
    # By the parts of names.
    'mmpretrain::deit/deit-small_4xb256_in1k.py',
    'mmpretrain::levit/levit-128s_8xb256_in1k.py',
    'mmpretrain::csra/resnet101-csra_1xb16_voc07-448px.py',
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mmdet::detr/detr_r18_8xb2-500e_coco.py',
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'mmdet::efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
    # Layer-wise by names that begin with `backbone`.
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',
    'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
]
CONNECTOR = dict(type='mmfakd.FrequencyAttentionConnector', modes=2)


def settings(wrapper, model):
    """Rate, decay and scale of each parameter, by its name."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (g['lr'], g['weight_decay'], g.get('lr_scale'))
        for g in wrapper.optimizer.param_groups
        for p in g['params']
    }


def students(found):
    prefix = 'architecture.'
    return {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}


def optim_cfg(**kwargs):
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01)
    return ConfigDict(optimizer=optimizer, **kwargs)


def by_keys(**keys):
    return optim_cfg(paramwise_cfg=dict(custom_keys=keys))


@pytest.mark.parametrize('path', STOCK)
def test_stock_recipes(path, monkeypatch):
    package = path.partition('::')[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed')
    cfg = get_config(path)
    init_default_scope(package)
    optim = copy.deepcopy(cfg.optim_wrapper)
    optim.type = 'OptimWrapper'
    for key in ('clip_grad', 'loss_scale', 'dtype'):
        optim.pop(key, None)
    # Only names and shapes of parameters matter; numbers for drop path must be there.
    monkeypatch.setattr(torch, 'linspace', partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        student = MODELS.build(dict(cfg.model, _scope_=package))
    student.data_preprocessor = BaseDataPreprocessor()
    alone = settings(build_optim_wrapper(student, optim), student)

    layers = ['backbone']
    model = FeatureDistill(
        student,
        classifier(),
        dict(
            type='mmfakd.LevelDistiller',
            student_levels=layers,
            teacher_levels=layers,
            level_loss=dict(type='mmrazor.L2Loss'),
            student_connectors=dict(CONNECTOR, in_channels=4, out_channels=8),
        ),
    )
    wrapper = build_optim_wrapper(model, optim)
    found = settings(wrapper, model)
    assert len(set(alone.values())) > 1
    assert students(found) == alone
    others = {k: v for k, v in found.items() if k.startswith('distiller.')}
    assert len(others) == len(list(model.distiller.parameters()))
    assert len(others) + len(alone) == len(found)
    bias = (optim.get('paramwise_cfg') or {}).get('bias_lr_mult', 1)
    base = optim.optimizer.lr
    assert {v[0] for k, v in others.items()} <= {base, base * bias}
    init_default_scope('mmfakd')


@pytest.mark.parametrize('decay_type', ['layer_wise', 'stage_wise'])
def test_decay_of_mmdet(decay_type):
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmpretrain.ConvNeXt',
            arch=dict(depths=[1, 1, 4, 1], channels=[4, 4, 8, 8]),
        ),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=8),
    )
    distiller = layer_distiller('backbone', channels=(8, 32))
    model = feature_distill(architecture=student, distiller=distiller)
    cfg = optim_cfg(
        constructor='mmdet.LearningRateDecayOptimizerConstructor',
        paramwise_cfg=dict(decay_rate=0.5, decay_type=decay_type, num_layers=6),
    )
    alone = build_optim_wrapper(model.architecture, cfg)
    alone = settings(alone, model.architecture)
    found = settings(build_optim_wrapper(model, cfg), model)
    assert students(found) == alone
    assert min(v[2] for v in alone.values()) <= 0.5**4
    assert {v[0] for k, v in found.items() if k.startswith('distiller')} == {0.1}


def test_a_runner_wrapped_models_and_mmrazors_algorithm():
    model = feature_distill(distiller=layer_distiller())
    cfg = by_keys(**{'backbone.layer1': dict(lr_mult=0.1), '.bn1': dict(decay_mult=0)})
    alone = build_optim_wrapper(model.architecture, cfg)
    alone = settings(alone, model.architecture)
    expected = {(0.1, 0.01), (0.1 * 0.1, 0.01), (0.1, 0.0)}
    assert {v[:2] for v in alone.values()} == expected
    for around in (model, nn.DataParallel(model)):
        assert students(settings(build_optim_wrapper(around, cfg), model)) == alone
    stock = MODELS.build(
        dict(
            type='mmrazor.SingleTeacherDistill',
            architecture=classifier(),
            teacher=classifier(width=8),
            distiller=layer_distiller(),
        )
    )
    assert students(settings(build_optim_wrapper(stock, cfg), stock)) == alone


def test_the_distillers_own_rates():
    cfg = layer_distiller()
    connectors = cfg['connectors']
    connectors['backbone_fam'] = connectors.pop('fam')
    cfg['loss_forward_mappings']['loss_fam']['s_feature']['connector'] = 'backbone_fam'
    model = feature_distill(distiller=cfg)

    def rates(**keys):
        found = settings(build_optim_wrapper(model, by_keys(**keys)), model)
        return {v[:2] for k, v in found.items() if k.startswith('distiller')}

    assert rates(backbone=dict(lr_mult=0.1, decay_mult=0.5)) == {(0.1, 0.01)}
    assert rates(backbone=dict(lr_mult=0.1), distiller=dict(lr_mult=10)) == {(1, 0.01)}
    assert rates(backbone_fam=dict(lr_mult=2)) == {(0.2, 0.01)}
    # A kind of parameter, not a part of the student.
    assert rates(bias=dict(lr_mult=2, decay_mult=0)) == {(0.1, 0.01), (0.1, 0.0)}
    assert rates(architecture=dict(lr_mult=0)) == {(0.1, 0.01)}


@pytest.mark.parametrize('key', ['distiller', 'architecture', 'norm'])
def test_connectors_of_a_student_that_rests(key):
    """They have the rates that they have beside one that learns."""
    optim = by_keys(**{key: dict(lr_mult=10, decay_mult=0.5)})
    found = []
    for learns in (True, False):
        model = feature_distill(student_trainable=learns)
        found.append(settings(build_optim_wrapper(model, copy.deepcopy(optim)), model))
    both, alone = found
    connectors = {k: v for k, v in both.items() if k.startswith('distiller')}
    assert connectors and alone == connectors


def test_keys_that_begin_with_architecture():
    model = feature_distill(distiller=layer_distiller())
    plain = by_keys(backbone=dict(lr_mult=0.1), head=dict(decay_mult=0))
    named = by_keys(
        **{
            'architecture': dict(lr_mult=1),
            'architecture.backbone': dict(lr_mult=0.1),
            'architecture.head': dict(decay_mult=0),
        }
    )
    found = [settings(build_optim_wrapper(model, cfg), model) for cfg in (plain, named)]
    assert found[0] == found[1]
    assert {v[0] for v in students(found[0]).values()} == {0.1, 0.1 * 0.1}
    # The config is left as it was.
    assert 'architecture' in named.paramwise_cfg.custom_keys


def test_shared_parameters_stand_once():
    model = feature_distill(distiller=layer_distiller())
    model.distiller.shared = model.architecture.head.fc
    cfg = optim_cfg(paramwise_cfg=dict(bypass_duplicate=True, norm_decay_mult=0))
    wrapper = build_optim_wrapper(model, cfg)
    held = [id(p) for g in wrapper.optimizer.param_groups for p in g['params']]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_without_options_there_is_one_group():
    model = feature_distill(distiller=layer_distiller())
    (group,) = build_optim_wrapper(model, optim_cfg()).optimizer.param_groups
    assert [id(p) for p in group['params']] == [id(p) for p in model.parameters()]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class ByName:
    """A constructor of no common class, such as those of other libraries."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.paramwise_cfg = paramwise_cfg

    def __call__(self, model):
        groups = [
            dict(params=[p], lr=0.01 if name.startswith('backbone') else 0.5)
            for name, p in model.named_parameters()
        ]
        return OptimWrapper(torch.optim.SGD(groups, lr=0.2, weight_decay=0.1))


def test_a_constructor_of_no_common_class():
    model = feature_distill(distiller=layer_distiller())
    found = settings(build_optim_wrapper(model, optim_cfg(constructor='ByName')), model)
    rates = {
        name.split('.')[0] if name.startswith('distiller') else name.split('.')[1]: v[0]
        for name, v in found.items()
    }
    assert rates == dict(backbone=0.01, head=0.5, distiller=0.2)
    assert len(found) == len(list(model.parameters()))


def test_an_optimizer_for_each_part_is_refused():
    model = feature_distill(distiller=layer_distiller())
    cfg = ConfigDict(
        constructor='mmrazor.SeparateOptimWrapperConstructor',
        architecture=optim_cfg(),
        distiller=optim_cfg(),
    )
    with pytest.raises(ValueError, match='Give one optimizer, with other') as caught:
        build_optim_wrapper(model, cfg)
    assert "['architecture', 'distiller']" in str(caught.value)
