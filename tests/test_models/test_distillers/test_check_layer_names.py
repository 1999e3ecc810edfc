# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A wrong layer name is found before training, and the right one is shown."""

import pytest
from mmengine.registry import MODELS
from mmrazor.models.task_modules import RecorderManager
from torch import nn

from mmfakd.models.distillers.check_layer_names import check_layer_names


@pytest.fixture(scope='module')
def resnet():
    return nn.ModuleDict(
        dict(backbone=MODELS.build(dict(type='mmpretrain.ResNet', depth=18)))
    )


def check(model, source, kind='ModuleOutputs', role='student', **kwargs):
    recorder = dict(type=kind, source=source, **kwargs)
    check_layer_names(RecorderManager(dict(feat=recorder)).recorders, model, role)


@pytest.mark.parametrize('kind', ['ModuleOutputs', 'ModuleInputs'])
def test_existing_layers_pass(kind, resnet):
    check(resnet, 'backbone.layer1.0.conv2', kind)


@pytest.mark.parametrize(
    ('name', 'near'),
    [
        ('backbone.layer5', 'backbone.layer4'),
        ('backbone.layer3.2.conv1', 'backbone.layer3.1.conv1'),
        ('backbon.layer1', 'backbone.layer1'),
        ('layer4', 'backbone.layer4'),
    ],
)
@pytest.mark.parametrize('kind', ['ModuleOutputs', 'ModuleInputs'])
def test_near_names_are_listed(name, near, kind, resnet):
    with pytest.raises(ValueError) as error:
        check(resnet, name, kind, 'teacher')
    message = str(error.value)
    assert message.startswith(
        f"teacher recorder 'feat': the teacher (ModuleDict) has no layer {name!r}. "
        'Nearest names: '
    )
    assert f"'{near}'" in message
    assert message.endswith('Choose one of `model.named_modules()`.')


def test_siblings_are_listed_and_lists_stay_short(resnet):
    with pytest.raises(ValueError) as error:
        check(resnet, 'backbone.xyz')
    names = str(error.value).split('Nearest names: ')[1].split('. Choose')[0]
    assert "'backbone.conv1'" in names and "'backbone.layer1'" in names
    assert len(names.split(', ')) <= 10


def test_a_model_without_a_neck(resnet):
    said = r"no layer 'neck\.gap'\. It has no neck: record layers of its backbone\. Nea"
    with pytest.raises(ValueError, match=said):
        check(resnet, 'neck.gap')


def test_nothing_near():
    with pytest.raises(ValueError, match='Nearest names: none'):
        check(nn.Linear(1, 1), 'zzz.zzz')


def test_other_recorders_are_left_to_mmrazor(resnet):
    check(resnet, 'not.there', 'Parameter')
    check(resnet, 'torch.nn.Module.forward', 'MethodOutputs')
