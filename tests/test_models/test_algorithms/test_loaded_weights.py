# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models that load weights in their constructor keep them, teachers and students."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.algorithms import TeacherEvaluation
from tests.helpers.toy import feature_distill

HEAD = dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=8)


@MODELS.register_module(force=True)
class LoadsItself(BaseModule):
    """A backbone as other libraries' wrappers are: loaded when built, if told to."""

    def __init__(self, path=None, init_cfg=None):
        super().__init__(init_cfg)
        self.inner = Inner()
        if path is not None:
            self.inner.load_state_dict(torch.load(path))

    def forward(self, x):
        return (self.inner(x),)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x))

    def init_weights(self, mode=''):
        """Timm's and Transformers' models have one, too."""
        for module in self.modules():
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()


@pytest.fixture
def path(tmp_path):
    inner = Inner()
    for i, tensor in enumerate(inner.state_dict().values()):
        tensor.fill_(i + 1)
    path = str(tmp_path / 'inner.pth')
    torch.save(inner.state_dict(), path)
    return path


@pytest.fixture
def told():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def model(path=None, **kwargs):
    backbone = dict(type='LoadsItself', path=path, **kwargs)
    neck = dict(type='mmpretrain.GlobalAveragePooling')
    return dict(
        type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=dict(HEAD)
    )


def pair(architecture, teacher, layer='backbone.inner', **kwargs):
    distiller = dict(
        type='mmfakd.LevelDistiller',
        student_levels=[layer],
        teacher_levels=[layer],
        level_loss=dict(type='mmrazor.L2Loss'),
    )
    return feature_distill(
        architecture=architecture, teacher=teacher, distiller=distiller, **kwargs
    )


def holds(backbone, values=range(1, 7)):
    found = backbone.inner.state_dict()
    return all((t == v).all() for t, v in zip(found.values(), values))


def test_teacher_and_student_keep_them(path, told):
    distilled = pair(model(path), model(path))
    distilled.init_weights()
    assert holds(distilled.architecture.backbone) and holds(distilled.teacher.backbone)
    assert distilled._teacher.has_weights
    assert 'what the constructor of ImageClassifier loads' in distilled._teacher.source
    assert not any('NO WEIGHTS' in text for text in told)


def test_a_teacher_that_loads_only_a_part(path, told):
    # The head, which is recorded, is random.
    distilled = pair(model(path), model(path), layer='head.fc')
    distilled.init_weights()
    assert holds(distilled.teacher.backbone)
    assert not distilled._teacher.has_weights
    assert any('NO WEIGHTS' in t and "only ['backbone']" in t for t in told)
    with pytest.raises(ValueError, match='has no weights, or not for all'):
        TeacherEvaluation(model(path), model(path)).init_weights()


def test_without_a_file_the_initialisation_counts(told):
    distilled = pair(model(), model())
    distilled.init_weights()
    assert any('NO WEIGHTS' in text for text in told)
    assert not distilled._teacher.has_weights
    assert (distilled.architecture.backbone.inner.norm.weight == 1).all()


def test_checkpoints_that_are_given_go_over_them(path, tmp_path):
    other = pair(model(), model()).architecture.state_dict()
    file = str(tmp_path / 'whole.pth')
    torch.save(other, file)
    kwargs = dict(student_ckpt=file, teacher_ckpt=file)
    distilled = pair(model(path), model(path), **kwargs)
    distilled.init_weights()
    for one in (distilled.architecture, distilled.teacher):
        assert all(torch.equal(v, other[k]) for k, v in one.state_dict().items())


def test_an_init_cfg_of_the_part_goes_over_them(path, tmp_path):
    weights = {f'inner.{k}': v * 10 for k, v in Inner().state_dict().items()}
    file = str(tmp_path / 'other.pth')
    torch.save(weights, file)
    init_cfg = dict(type='Pretrained', checkpoint=file)
    distilled = pair(model(path, init_cfg=init_cfg), model(path, init_cfg=init_cfg))
    distilled.init_weights()
    for one in (distilled.architecture, distilled.teacher):
        found = one.backbone.state_dict()
        assert all(torch.equal(found[k], v) for k, v in weights.items())


@MODELS.register_module(force=True)
class TwoParts(BaseModule):
    """Each part says for itself where its weights are; a plain list hides it."""

    def __init__(self, parts, hidden=False):
        super().__init__()
        first, second = (MODELS.build(part) for part in parts)
        self.first = first
        self.second = nn.ModuleList([second]) if hidden else second

    def forward(self, x):
        return (self.first(x)[0],)


@pytest.mark.parametrize('hidden', [False, True])
def test_init_cfgs_of_parts_within_parts(hidden, path, tmp_path, told):
    weights = {f'inner.{k}': v for k, v in torch.load(path).items()}
    file = str(tmp_path / 'part.pth')
    torch.save(weights, file)
    part = dict(type='LoadsItself', init_cfg=dict(type='Pretrained', checkpoint=file))
    teacher = model()
    teacher['backbone'] = dict(type='TwoParts', parts=[part, part], hidden=hidden)
    distilled = pair(model(), teacher, layer='backbone')
    distilled.init_weights()
    assert holds(distilled.teacher.backbone.first)
    # MMEngine does not initialise what stands in a plain list.
    assert distilled._teacher.has_weights is not hidden
    assert hidden == any("only ['backbone.first'] has" in text for text in told)


@pytest.mark.parametrize('kind', ['vit_tiny_patch16_224', 'resnet10t'])
@pytest.mark.parametrize('way', ['checkpoint_path', 'overlay'])
@pytest.mark.parametrize('wrapper', ['TimmClassifier', 'TIMMBackbone'])
def test_timm(kind, way, wrapper, tmp_path):
    timm = pytest.importorskip('timm')
    torch.manual_seed(3)
    options = dict(img_size=32, depth=1) if 'vit' in kind else {}
    source = timm.create_model(kind, num_classes=5, **options)
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    file = str(tmp_path / 'timm.pth')
    torch.save(source.state_dict(), file)
    options.update(model_name=kind, num_classes=5)
    if way == 'overlay':
        overlay = dict(file=file, num_classes=5)
        options.update(pretrained=True, pretrained_cfg_overlay=overlay)
    else:
        options.update(checkpoint_path=file)
    if wrapper == 'TIMMBackbone':
        part = dict(type='mmpretrain.TIMMBackbone', **options)
        cfg = dict(type='mmpretrain.ImageClassifier', backbone=part)
        layer = 'backbone.timm_model'
    else:
        cfg, layer = dict(type='mmpretrain.TimmClassifier', **options), 'model'
    distilled = pair(cfg, cfg, layer=layer)
    distilled.init_weights()
    expected = source.state_dict()
    for one in (distilled.architecture, distilled.teacher):
        found = one.get_submodule(layer).state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in found.items())
    assert distilled._teacher.has_weights
