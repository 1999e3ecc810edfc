# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a distillation has trained teaches in its turn."""

from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmrazor.models.algorithms import BaseAlgorithm

from mmfakd.analysis.benchmark.step import build_part
from mmfakd.checkpoints.student import export_student
from mmfakd.model_zoo.inline_models import inline_models
from mmfakd.model_zoo.resolve import model_files, resolve_model_cfg
from mmfakd.model_zoo.student_of import student_of
from tests.helpers.toy import (
    LEVELS,
    batch,
    classifier,
    feature_distill,
    losses_of,
    review_distiller,
)

OUTER = dict(mean=[1.0] * 3, std=[2.0] * 3)


def distillation(kind='mmfakd.FeatureDistill', **kwargs):
    return ConfigDict(
        type=kind,
        architecture=classifier(width=8),
        teacher=dict(type='NotBuilt'),
        distiller=dict(type='NotBuilt'),
        **kwargs,
    )


@pytest.mark.parametrize('source', ['whole', 'student file'])
def test_either_checkpoint_fits_the_teacher(source, tmp_path):
    first = feature_distill(
        architecture=classifier(width=8),
        teacher=classifier(),
        distiller=review_distiller(width=8, teacher_width=4),
    )
    checkpoint = dict(state_dict=first.state_dict(), meta={})
    if source == 'student file':
        checkpoint = export_student(checkpoint)
    torch.save(checkpoint, tmp_path / 'teacher.pth')
    # The names of its layers are those of the student.
    second = feature_distill(
        teacher=distillation(data_preprocessor=OUTER),
        teacher_ckpt=str(tmp_path / 'teacher.pth'),
    )
    second.init_weights()
    assert type(second.teacher) is type(first.architecture)
    expected = first.architecture.state_dict()
    for key, value in second.teacher.state_dict().items():
        assert torch.equal(value, expected[key])
    assert second.teacher.data_preprocessor.mean.flatten().tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ('kind', 'scope'),
    [
        ('mmfakd.FeatureDistill', None),
        ('FeatureDistill', 'mmfakd'),
        ('mmrazor.SingleTeacherDistill', None),
        ('mmrazor.FpnTeacherDistill', 'mmpretrain'),
        ('mmrazor.SelfDistill', None),
    ],
)
def test_distillations(kind, scope, monkeypatch):
    cfg = distillation(kind, data_preprocessor=OUTER)
    if scope:
        cfg['_scope_'] = scope
    if 'SelfDistill' in kind:
        cfg.pop('teacher')
    told = []
    monkeypatch.setattr(
        'mmfakd.model_zoo.student_of.print_log',
        lambda text, **kwargs: told.append(text),
    )
    student = student_of(cfg)
    (text,) = told
    assert f'is the student (ImageClassifier) of a distillation, {kind}.' in text
    assert student == dict(classifier(width=8), data_preprocessor=OUTER)
    assert 'data_preprocessor' not in cfg.architecture
    # Once more changes nothing.
    assert student_of(student) is student


def test_the_scope_is_that_of_the_config():
    cfg = distillation(_scope_='mmpretrain')
    cfg.architecture.pop('_scope_')
    assert student_of(cfg)['_scope_'] == 'mmpretrain'


def test_a_shipped_config():
    path = dict(cfg_path='mmfakd::fakd_review_r18w32_r18w4_1xb50_digits')
    cfg, _ = resolve_model_cfg(path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(student_of(cfg))
    timed = build_part(Config(dict(model=dict(teacher=path))), 'teacher')
    for model in (built, timed):
        assert type(model).__name__ == 'ImageClassifier'
        assert model.backbone.conv1.out_channels == 4


class OwnWrapper(BaseAlgorithm):
    """An algorithm of a user's."""


@pytest.mark.parametrize(
    'cfg',
    [
        classifier(),
        dict(type='mmrazor.BaseAlgorithm', architecture=classifier()),
        dict(type='mmrazor.ItePruneAlgorithm', architecture=classifier()),
        dict(type=OwnWrapper, architecture=classifier(), teacher=1, distiller=1),
        dict(type='mmrazor.sub_model', cfg=classifier(), fix_subnet={}),
        dict(type='mmpretrain.Unknown', architecture=classifier()),
    ],
)
def test_all_else_stays_as_it_is(cfg):
    cfg = ConfigDict(cfg)
    assert student_of(cfg) is cfg


@pytest.mark.parametrize(
    ('override', 'refused'),
    [
        (
            dict(head=dict(num_classes=7)),
            r"^teacher: .*'head' is no .*: architecture=dict\(head=\.\.",
        ),
        (dict(architecture=dict(head=dict(num_classes=7))), None),
        (dict(teacher_ckpt=None, inherit=['neck'], _scope_='mmpretrain'), None),
    ],
)
def test_overrides_that_would_be_lost(override, refused, tmp_path):
    path = tmp_path / 'distillation.py'
    path.write_text(f'model = {distillation().to_dict()!r}')
    cfg, _ = resolve_model_cfg(dict(cfg_path=str(path), **override))
    raises = pytest.raises(ValueError, match=refused) if refused else nullcontext()
    with raises:
        student = student_of(cfg)
        expected = 7 if 'architecture' in override else 10
        assert student.head.num_classes == expected


def test_a_training_has_the_student_in_its_config(tmp_path):
    """And none of the files, of which the first teacher's may be gone."""
    for name in ('student', 'assistant'):
        (tmp_path / f'{name}.py').write_text('')
    student, assistant = (str(tmp_path / f'{n}.py') for n in ('student', 'assistant'))
    (tmp_path / 'student.py').write_text(
        f'model = {classifier(width=8)!r}\ndata_preprocessor = {OUTER!r}\n'
    )
    inner = dict(distillation(), architecture=dict(cfg_path=student))
    inner = ConfigDict(inner, teacher=dict(cfg_path='gone.py')).to_dict()
    (tmp_path / 'assistant.py').write_text(f'model = {inner!r}')
    for teacher in (dict(cfg_path=assistant), inner):
        cfg = Config(dict(model=dict(architecture=classifier(), teacher=teacher)))
        inline_models(cfg)
        assert model_files(cfg.model) == []
        assert cfg.model.teacher == dict(classifier(width=8), data_preprocessor=OUTER)


def two_distillations():
    """A distillation whose student is one."""
    inner = dict(
        type='mmfakd.FeatureDistill',
        architecture=classifier(),
        teacher=classifier(width=8),
        distiller=review_distiller(),
        report=False,
    )
    outer = review_distiller()
    outer['student_levels'] = [f'architecture.{name}' for name in LEVELS]
    return dict(architecture=inner, distiller=outer, report=False)


def test_a_student_that_is_a_distillation_stays_one():
    """Two distillations at once: the losses of both teach the inner student."""
    losses = losses_of(feature_distill(**two_distillations()), batch())
    assert {'distill.loss_level0', 'student.distill.loss_level0'} <= set(losses)


@pytest.mark.parametrize('source', ['whole', 'student file'])
def test_either_checkpoint_of_two_distillations_fits(source, tmp_path):
    cfg = two_distillations()
    first = feature_distill(**cfg)
    checkpoint = dict(state_dict=first.state_dict(), meta={})
    if source == 'student file':
        checkpoint = export_student(checkpoint)
    torch.save(checkpoint, tmp_path / 'teacher.pth')
    second = feature_distill(
        teacher=ConfigDict(distillation(), **cfg),
        teacher_ckpt=str(tmp_path / 'teacher.pth'),
        distiller=review_distiller(teacher_width=4),
    )
    second.init_weights()
    expected = first.architecture.architecture.state_dict()
    found = second.teacher.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_list_of_teachers_is_left_to_who_refuses_it(tmp_path):
    path = tmp_path / 'teacher.py'
    path.write_text('model = dict(type="X")')
    cfg = Config(dict(model=distillation()))
    cfg.model.teacher = [dict(cfg_path=str(path))]
    inline_models(cfg)
    assert isinstance(cfg.model.teacher, list)
