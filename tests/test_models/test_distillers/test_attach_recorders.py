# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Layers that are replaced after the build are recorded all the same."""

import copy
import logging

import pytest
import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.logging import MMLogger
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from torch import nn

from tests.helpers.toy import (
    LEVELS,
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    step,
)


@pytest.fixture
def told():
    """The messages of the test so far."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def distilled(model, data):
    losses = losses_of(model, copy.deepcopy(data))
    return {k: v.item() for k, v in losses.items() if k.startswith('distill.')}


def pair(source):
    torch.manual_seed(0)
    return feature_distill(
        architecture=classifier(),
        teacher=classifier(),
        distiller=dict(
            type='mmfakd.LevelDistiller',
            student_levels=[source],
            teacher_levels=[source],
            level_loss=dict(type='mmrazor.L2Loss'),
        ),
    )


@pytest.mark.parametrize(
    'convert',
    [
        nn.SyncBatchNorm.convert_sync_batchnorm,
        convert_sync_batchnorm,
        lambda model: revert_sync_batchnorm(convert_sync_batchnorm(model)),
        copy.deepcopy,
        lambda model: model.to(torch.float32),
        lambda model: copy.deepcopy(convert_sync_batchnorm(model)),
    ],
)
@pytest.mark.parametrize('source', ['backbone.layer1.1.bn2', 'backbone.layer2'])
def test_conversions(convert, source):
    data = batch()
    expected = distilled(pair(source), data)
    model = convert(pair(source))
    assert distilled(model, data) == expected
    assert step(model, data)['distill.loss_level0'].requires_grad
    # The teacher's layer, too.
    model._teacher._outside = (convert(model.teacher),)
    model.train()
    assert distilled(model, data).keys() == expected.keys()


def test_what_replaces_a_layer_is_recorded_and_told(told):
    model = pair('backbone.layer1.1.bn2')
    data = batch()
    before = distilled(model, data)['distill.loss_level0']
    assert not [text for text in told if 'replaced' in text]
    old = model.architecture.backbone.layer1[1].bn2
    model.architecture.backbone.layer1[1].bn2 = nn.Sequential(old, nn.Dropout(1.0))
    assert distilled(model, data)['distill.loss_level0'] != before
    expected = 'has been replaced since the model was built; the Sequential'
    assert expected in ' '.join(told)
    assert not old._forward_hooks
    # Once.
    distilled(model, data)
    assert ' '.join(told).count('has been replaced') == 1


def test_fused_norms():
    model = pair('backbone.layer1.1.bn2')
    data = batch()
    model.architecture.eval()
    expected = distilled(model, data)['distill.loss_level0']
    fuse_conv_bn(model.architecture.backbone.layer1)
    found = distilled(model, data)['distill.loss_level0']
    assert found == pytest.approx(expected, rel=1e-4)


def test_low_rank_layers_are_recorded_whole():
    lora = pytest.importorskip('mmpretrain.models.peft.lora')
    model = pair('head.fc')
    data = batch()
    before = distilled(model, data)['distill.loss_level0']
    head = model.architecture.head
    head.fc = lora.LoRALinear(head.fc, alpha=1, rank=2)
    nn.init.constant_(head.fc.lora_up.weight, 1.0)
    assert distilled(model, data)['distill.loss_level0'] != before


def test_replaced_weights():
    recorders = dict(weight=dict(type='mmrazor.Parameter', source='head.fc.weight'))
    cfg = layer_distiller()
    cfg.update(
        student_recorders=recorders,
        teacher_recorders=copy.deepcopy(recorders),
        connectors={},
        distill_losses=dict(loss=dict(type='mmrazor.L2Loss')),
        loss_forward_mappings=dict(
            loss=dict(
                s_feature=dict(recorder='weight', from_student=True),
                t_feature=dict(recorder='weight', from_student=False),
            )
        ),
    )
    model = feature_distill(teacher=classifier(), distiller=cfg)
    head = model.architecture.head
    head.fc.weight = nn.Parameter(torch.rand_like(head.fc.weight))
    model.teacher.head.fc.weight.data.fill_(1.0)
    first = distilled(model, batch())['distill.loss']
    head.fc.weight = nn.Parameter(torch.ones_like(head.fc.weight))
    assert distilled(model, batch())['distill.loss'] == 0 < first


def test_a_layer_that_is_gone():
    model = feature_distill()
    del model.architecture.backbone.layer3
    with pytest.raises(ValueError, match="no layer 'backbone.layer3'.*backbone.layer2"):
        losses_of(model, batch())


@pytest.mark.parametrize('stock', [False, True])
def test_a_layer_that_is_not_called(stock):
    source = 'backbone.layer3'
    cfg = layer_distiller(source) if stock else review_distiller()
    model = feature_distill(distiller=cfg)
    layer = model.architecture.backbone.layer3
    # Called by its method, it runs no hooks.
    call = layer.forward
    model.architecture.backbone.res_layers = [
        name for name in model.architecture.backbone.res_layers if name != 'layer3'
    ]
    norm = model.architecture.backbone.layer2
    norm.register_forward_hook(lambda module, args, output: call(output))
    model.architecture.backbone.out_indices = (1,)
    with pytest.raises(RuntimeError, match='was called 0 time') as caught:
        losses_of(model, batch())
    assert 'student recorder' in str(caught.value) and source in str(caught.value)
    assert 'Record the layer around it' in str(caught.value)
    assert LEVELS[2] == source


def test_too_few_calls_of_a_layer():
    recorder = dict(type='mmrazor.ModuleOutputs', source='backbone.layer1.0.relu')
    levels = [dict(recorder=recorder, record_idx=2)]
    cfg = dict(
        type='mmfakd.LevelDistiller',
        student_levels=levels,
        teacher_levels=[dict(recorder=copy.deepcopy(recorder), record_idx=1)],
        level_loss=dict(type='mmrazor.L2Loss'),
    )
    model = feature_distill(teacher=classifier(), distiller=cfg)
    with pytest.raises(RuntimeError, match='was called 2 time.*lower `record_idx`'):
        losses_of(model, batch())
