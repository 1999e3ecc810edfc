# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The teacher on its own: outside of the module tree, yet never left behind."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.algorithms.teacher import Teacher
from tests.helpers.toy import classifier, layer_distiller


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
