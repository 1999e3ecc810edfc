# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Students that start with the neck and the head of their teacher."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmfakd.checkpoints.inherit import find_inheritable
from tests.helpers.toy import feature_distill, step
from tests.helpers.toy_detectors import (
    detection_batch,
    detection_run,
    pyramid_distiller,
    retinanet,
)

PARTS = ('backbone', 'neck', 'bbox_head')


@pytest.fixture
def weights(tmp_path):
    """The file of a teacher, and its weights."""
    path = str(tmp_path / 'teacher.pth')
    state_dict = MODELS.build(retinanet(width=16)).state_dict()
    torch.save(dict(state_dict=state_dict), path)
    return path, state_dict


def pair(teacher_ckpt=None, **kwargs):
    cfg = dict(
        architecture=retinanet(),
        teacher=retinanet(width=16),
        teacher_ckpt=teacher_ckpt,
        distiller=pyramid_distiller(),
    )
    return feature_distill(**{**cfg, **kwargs})


def inherited(model, state_dict):
    """The parts of the student all of whose weights are the teacher's."""
    student = model.architecture.state_dict()
    return [
        part
        for part in PARTS
        if all(
            torch.equal(value, state_dict[key])
            for key, value in student.items()
            if key.startswith(f'{part}.')
        )
    ]


@pytest.mark.parametrize(
    ('inherit', 'parts'), [(None, []), ('bbox_head', ['bbox_head']), ([], [])]
)
def test_modules_start_as_the_teacher_s(weights, inherit, parts):
    path, state_dict = weights
    model = pair(path, inherit=inherit)
    before = copy.deepcopy(model.architecture.state_dict())
    assert inherited(model, state_dict) == []
    model.init_weights()
    assert inherited(model, state_dict) == parts
    # The rest is initialised as ever: not left as it was, nor the teacher's.
    backbone = model.architecture.state_dict()['backbone.layer4.1.conv2.weight']
    assert not torch.equal(backbone, before['backbone.layer4.1.conv2.weight'])


def test_lateral_convolutions_of_unequal_widths_stay(weights):
    """Of necks behind backbones of other widths parts fit, by dotted names."""
    path, state_dict = weights
    model = pair(path)
    names = find_inheritable(model.architecture, model.teacher)
    assert names == ['neck.fpn_convs', 'bbox_head']
    model = pair(path, inherit=names)
    model.init_weights()
    student = model.architecture.state_dict()
    copied = [
        key
        for key, value in student.items()
        if key.split('.')[0] != 'backbone'
        and value.shape == state_dict[key].shape
        and torch.equal(value, state_dict[key])
        and value.any()
    ]
    assert {key.rpartition('.')[0] for key in copied if 'neck' in key} == {
        f'neck.fpn_convs.{i}.conv' for i in range(3)
    }
    assert sum(key.startswith('bbox_head') for key in copied) >= 4


def test_copies_do_not_move_the_teacher(weights):
    path, state_dict = weights
    model = pair(path, inherit='bbox_head')
    model.init_weights()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    step(model, detection_batch())
    optimizer.step()
    assert inherited(model, state_dict) == []
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, state_dict[key])


def test_student_predicts_what_the_teacher_does_if_all_is_inherited(weights):
    path, _ = weights
    model = pair(path, architecture=retinanet(width=16), inherit=PARTS).eval()
    model.init_weights()
    data = model.data_preprocessor(detection_batch())
    ours = model(**data, mode='predict')
    theirs = model.teacher(**data, mode='predict')
    for our, their in zip(ours, theirs):
        torch.testing.assert_close(
            our.pred_instances.bboxes, their.pred_instances.bboxes
        )


def test_built_teacher():
    built = MODELS.build(retinanet(width=16))
    model = pair(teacher=built, inherit='bbox_head')
    model.init_weights()
    assert inherited(model, built.state_dict()) == ['bbox_head']


# ---- other weights


def test_beside_a_checkpoint_of_the_backbone(weights, tmp_path):
    path, state_dict = weights
    student = MODELS.build(retinanet()).backbone.state_dict()
    file = str(tmp_path / 'backbone.pth')
    torch.save({f'backbone.{key}': value for key, value in student.items()}, file)
    model = pair(path, student_ckpt=file, inherit='bbox_head')
    model.init_weights()
    assert inherited(model, state_dict) == ['bbox_head']
    for key, value in model.architecture.backbone.state_dict().items():
        assert torch.equal(value, student[key])


def test_student_checkpoint_with_the_same_modules(weights, tmp_path):
    path, _ = weights
    file = str(tmp_path / 'student.pth')
    torch.save(MODELS.build(retinanet()).state_dict(), file)
    model = pair(path, student_ckpt=file, inherit='bbox_head')
    with pytest.raises(ValueError) as error:
        model.init_weights()
    assert str(error.value) == (
        f"student_ckpt={file!r} holds weights of ['bbox_head'], which `inherit` takes "
        'from the teacher. Leave out one of the two, or give a checkpoint without '
        'these modules.'
    )


def test_resumed_training_goes_on_with_its_own_weights(weights, tmp_path):
    path, state_dict = weights
    model = dict(
        type='mmfakd.FeatureDistill',
        architecture=retinanet(),
        teacher=retinanet(width=16),
        teacher_ckpt=path,
        inherit='bbox_head',
        distiller=pyramid_distiller(),
    )
    cfg = detection_run(tmp_path, model, epochs=1)
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    trained = copy.deepcopy(runner.model.architecture.state_dict())
    assert inherited(runner.model, state_dict) == []
    cfg.update(resume=True, experiment_name='resumed')
    runner = Runner.from_cfg(cfg)
    runner.train()
    for key, value in runner.model.architecture.state_dict().items():
        assert torch.equal(value, trained[key])


def test_students_are_evaluated_without_the_teacher_s_file(tmp_path):
    model = pair(str(tmp_path / 'gone.pth'), inherit='bbox_head').eval()
    assert len(model.val_step(detection_batch())) == 2


# ---- what cannot be inherited


@pytest.mark.parametrize(
    ('inherit', 'message'),
    [
        ('nek', r"the student \(RetinaNet\) has no module 'nek'\. .* 'neck'"),
        ('', r"has no module ''"),
        (['bbox_head', 'bbox_head'], "'bbox_head' and 'bbox_head' share weights"),
        (
            ['bbox_head.cls_convs', 'bbox_head'],
            "'bbox_head.cls_convs' and 'bbox_head' share weights",
        ),
        (
            ['bbox_head', 'backbone'],
            r"'backbone' .* backbone\.conv1\.weight: the student has \(8, 3, 7, 7\), "
            r'the teacher \(16, 3, 7, 7\)',
        ),
        ('neck', r"Parts that fit: \['neck\.fpn_convs'\]\."),
    ],
)
def test_bad_names(inherit, message):
    with pytest.raises(ValueError, match=message):
        pair(inherit=inherit)


def test_module_that_only_the_student_has():
    with pytest.raises(ValueError, match=r"the teacher \(RetinaNet\) has no .* 'neck'"):
        pair(teacher=retinanet(neck=None), inherit='neck')


def test_heads_of_other_classes():
    with pytest.raises(ValueError) as error:
        pair(teacher=retinanet(width=16, num_classes=7), inherit='bbox_head')
    assert str(error.value) == (
        "inherit: 'bbox_head' of the student cannot start as the teacher's: "
        'bbox_head.retina_cls.weight: the student has (3, 16, 3, 3), the teacher '
        '(7, 16, 3, 3); bbox_head.retina_cls.bias: the student has (3,), the teacher '
        '(7,). Leave it out, or set the widths, classes or number of levels of the '
        "student's to the teacher's. Parts that fit: ['bbox_head.cls_convs', "
        "'bbox_head.reg_convs', 'bbox_head.retina_reg']."
    )


def test_pyramids_of_other_depth():
    """A module that one of them has more of is listed with its keys."""
    with pytest.raises(ValueError) as error:
        pair(teacher=retinanet(num_outs=4), inherit='neck')
    assert 'neck.fpn_convs.3.conv.weight: the student has none, the teacher (16' in str(
        error.value
    )


def test_teacher_without_weights():
    with pytest.raises(ValueError, match='the teacher has no weights to inherit'):
        pair(inherit='bbox_head').init_weights()


def test_teacher_file_without_the_head(weights, tmp_path):
    """The features need no head, the student does."""
    _, state_dict = weights
    path = str(tmp_path / 'headless.pth')
    kept = {k: v for k, v in state_dict.items() if not k.startswith('bbox_head')}
    torch.save(kept, path)
    pair(path).init_weights()
    with pytest.raises(
        ValueError, match=r'8 tensors .* not in it: bbox_head\.cls_conv'
    ):
        pair(path, inherit='bbox_head').init_weights()


def test_teacher_whose_backbone_alone_is_pretrained(weights):
    path, _ = weights
    cfg = retinanet(width=16)
    cfg['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint=path, prefix='backbone'
    )
    with pytest.raises(ValueError, match='the teacher has no weights to inherit'):
        pair(teacher=cfg, inherit='bbox_head').init_weights()
