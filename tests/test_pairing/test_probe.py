# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a probe finds in real models, without weights and network."""

import copy
import socket

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from mmfakd.model_zoo.build import build_without_weights, without_pretrained
from mmfakd.model_zoo.find import find_config
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.pairing.probe import (
    TensorInfo,
    dummy_images,
    is_classifier,
    is_detector,
    probe_features,
    tensors_of,
)
from tests.helpers.token_models import vit_classifier
from tests.helpers.toy import classifier


def build(name):
    cfg, _ = resolve_model_cfg({'cfg_path': find_config(name)})
    return build_without_weights(cfg, None)


def calls_of(probe, name):
    return [call for call in probe.calls if call.name == name]


@pytest.fixture(scope='module')
def resnet():
    model = build('resnet18_8xb32_in1k')
    return model, probe_features(model, (64, 96))


def test_records_every_call_of_every_layer(resnet):
    model, probe = resnet
    assert probe.input_shape == (2, 3, 64, 96)
    called = {call.name for call in probe.calls}
    assert called == {name for name, _ in model.named_modules() if name} - {
        # Not called in a forward pass.
        'data_preprocessor',
        'head.loss_module',
    }
    first, second = calls_of(probe, 'backbone.layer1.0.relu')
    assert (first.index, second.index) == (0, 1)
    assert first.path == ('backbone', 'backbone.layer1', 'backbone.layer1.0')
    [stage] = calls_of(probe, 'backbone.layer2')
    assert stage.output == TensorInfo((2, 128, 8, 12), True, -1)
    assert (stage.kind, stage.weights, stage.is_leaf) == ('ResLayer', 5, False)
    [norm] = calls_of(probe, 'backbone.layer2.0.bn1')
    assert norm.is_leaf and not norm.output.non_negative
    assert [call.order for call in probe.calls] == list(range(len(probe.calls)))


def test_tensors_that_are_handed_on_share_a_number(resnet):
    _, probe = resnet
    [fc], [head] = calls_of(probe, 'head.fc'), calls_of(probe, 'head')
    assert fc.output.id == head.output.id == probe.output.id != -1


def test_tuples_are_told_by_their_index(resnet):
    _, probe = resnet
    [backbone] = calls_of(probe, 'backbone')
    [(index, info)] = tensors_of(backbone.output)
    assert (index, info.shape) == (0, (2, 512, 2, 3))
    assert tensors_of(((backbone.output[0], 5), None))[0][0] == (0, 0)


def test_a_model_is_left_as_it_was():
    model = MODELS.build(ConfigDict(classifier()))
    before = copy.deepcopy(model.state_dict())
    model.train()
    probe_features(model, (8, 8))
    assert model.training and model.backbone.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ('cfg', 'size', 'length', 'tokens'),
    [
        (vit_classifier(), (16, 16), 17, (1, 0)),
        (vit_classifier('RegisterViT'), (16, 16), 21, (5, 0)),
        (vit_classifier('DistilledVisionTransformer'), (16, 16), 18, (2, 0)),
    ],
    ids=['class token', 'registers', 'class and distillation token'],
)
def test_measures_which_tokens_are_patches(cfg, size, length, tokens):
    model = MODELS.build(ConfigDict(cfg))
    assert probe_features(model, size).tokens[length] == tokens


@MODELS.register_module(force=True)
class TokensBehind(BaseModel):
    """Embeds patches and puts two tokens behind them."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.Identity()

    def extract_feat(self, inputs):
        patches = self.embed(inputs).flatten(2).transpose(1, 2)
        return self.mix(torch.cat([patches, torch.ones(len(inputs), 2, 8)], 1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.extract_feat(inputs)


def test_measures_tokens_behind_the_patches():
    assert probe_features(TokensBehind(), (16, 24)).tokens == {26: (0, 2)}


def test_images_are_the_same_whatever_device_is_the_default():
    expected = dummy_images((1, 3, 4, 4))
    with torch.device('meta'):
        assert torch.equal(dummy_images((1, 3, 4, 4)), expected)


def test_images_of_one_channel():
    assert probe_features(build('lenet5_mnist'), (32, 32)).input_shape == (2, 1, 32, 32)


def test_sizes_that_a_model_cannot_take():
    model = build('mlp-mixer-base-p16_64xb64_in1k')
    with pytest.raises(ValueError, match=r'fails on images of 160x160 pixels: Assert'):
        probe_features(model, (160, 160))
    assert not any(m._forward_hooks for m in model.modules())


def test_pretrained_weights_are_dropped_and_norms_not_synchronised():
    cfg = ConfigDict(
        backbone=dict(
            pretrained=True,
            norm_cfg=dict(type='SyncBN', momentum=0.1),
            init_cfg=[
                dict(type='Pretrained', checkpoint='torchvision://resnet50'),
                dict(type='Kaiming', layer='Conv2d'),
            ],
        ),
        necks=[dict(init_cfg=dict(type='mmengine.Pretrained', checkpoint='x.pth'))],
    )
    before = copy.deepcopy(cfg)
    assert without_pretrained(cfg) == dict(
        backbone=dict(
            pretrained=False,
            norm_cfg=dict(type='BN', momentum=0.1),
            init_cfg=[dict(type='Kaiming', layer='Conv2d')],
        ),
        necks=[dict(init_cfg=None)],
    )
    assert cfg == before


@MODELS.register_module(force=True)
class Downloads(BaseModel):
    """Asks for a connection when it is built."""

    def __init__(self):
        super().__init__()
        socket.create_connection(('127.0.0.1', 9))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs


def test_network_is_off_while_a_model_is_built():
    connect = socket.socket.connect
    with pytest.raises(ValueError, match="'Downloads' cannot be built.*a connection"):
        build_without_weights(dict(type='Downloads'), None)
    assert socket.socket.connect is connect


@pytest.fixture(scope='module')
def mmdet():
    """Detection, which needs the full mmcv."""
    pytest.importorskip('mmcv.ops')
    return pytest.importorskip('mmdet')


@pytest.mark.usefixtures('mmdet')
class TestDetectors:
    def test_heads_and_neck(self):
        model = build('retinanet_r18_fpn_1x_coco')
        assert is_detector(model) and not is_classifier(model)
        probe = probe_features(model, (64, 96))
        assert probe.note == ''
        [neck] = calls_of(probe, 'neck')
        shapes = [info.shape for _, info in tensors_of(neck.output)]
        sizes = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
        assert shapes == [(2, 256, *size) for size in sizes]
        assert len(calls_of(probe, 'bbox_head.retina_cls')) == 5

    def test_image_that_is_cut_before_the_first_convolution(self):
        probe = probe_features(
            build('yolox_tiny_8xb8-300e_coco'), (64, 64), heads=False
        )
        assert probe.input_shape == (2, 3, 64, 64)
