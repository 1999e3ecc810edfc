# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The teacher is evaluated on what it sees in distillation."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from tests.helpers.toy import batch, classifier

OWN = dict(mean=[100.0, 90.0, 80.0], std=[50.0, 51.0, 52.0], to_rgb=True)
STUDENT = dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=False)


@pytest.fixture
def teacher():
    """A teacher with weights and a normalisation of its own."""
    model = MODELS.build(classifier(width=8, num_classes=7, data_preprocessor=OWN))
    return model.eval()


@pytest.fixture
def checkpoint(teacher, tmp_path):
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=teacher.state_dict()), path)
    return str(path)


def build(**kwargs):
    cfg = dict(
        type='mmfakd.TeacherEvaluation',
        architecture=classifier(data_preprocessor=dict(STUDENT)),
        teacher=classifier(width=8, num_classes=7, data_preprocessor=dict(OWN)),
    )
    cfg.update(kwargs)
    return MODELS.build(ConfigDict(cfg)).eval()


def scores(model, data):
    with torch.no_grad():
        return torch.stack([s.pred_score for s in model.val_step(copy.deepcopy(data))])


def test_predictions_are_the_teacher_s_own(teacher, checkpoint):
    model = build(teacher_ckpt=checkpoint)
    model.init_weights()
    data = batch()
    expected = scores(teacher, data)
    assert expected.shape == (4, 7)
    torch.testing.assert_close(scores(model, data), expected, rtol=1e-4, atol=1e-6)


def test_wrong_input_shows(teacher, checkpoint):
    """Here the student's batch unchanged, in another order of channels and scale."""
    model = build(teacher_ckpt=checkpoint, teacher_preprocessor=dict())
    model.init_weights()
    data = batch()
    assert (scores(model, data) - scores(teacher, data)).abs().max() > 1e-3


def test_the_student_s_weights_do_not_matter(checkpoint):
    """No download of a pretrained backbone, no file of the student."""
    student = classifier()
    student['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint='http://127.0.0.1:1/never.pth'
    )
    build(architecture=student, teacher_ckpt=checkpoint).init_weights()


def test_weights_of_the_teacher_s_own_config(teacher, checkpoint):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    cfg = classifier(width=8, num_classes=7, data_preprocessor=OWN, init_cfg=init_cfg)
    model = build(teacher=cfg)
    model.init_weights()
    for key, value in teacher.state_dict().items():
        assert torch.equal(model.teacher.state_dict()[key], value)


def test_built_teacher_has_its_weights(teacher):
    model = build(teacher=teacher)
    model.init_weights()
    assert model.teacher is teacher


def test_no_weights():
    with pytest.raises(ValueError, match='no weights.*`--teacher-ckpt`'):
        build().init_weights()


def test_weights_of_the_backbone_alone(teacher, checkpoint):
    """The head is random: whatever its score says, it is not the teacher's."""
    cfg = classifier(width=8, num_classes=7)
    cfg['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    with pytest.raises(ValueError, match='not for all of its layers'):
        build(teacher=cfg).init_weights()
    backbone = {k: v for k, v in teacher.state_dict().items() if 'backbone' in k}
    torch.save(backbone, checkpoint)
    with pytest.raises(ValueError, match=r'are not in it: head\.fc\.weight'):
        build(teacher_ckpt=checkpoint).init_weights()


def test_it_has_no_distiller(teacher):
    model = build(teacher=teacher)
    assert sorted(name for name, _ in model.named_children()) == [
        '_teacher',
        'architecture',
        'data_preprocessor',
    ]
    assert not any('teacher' in key for key in model.state_dict())
    assert next(model.double().teacher.parameters()).dtype == torch.float64
