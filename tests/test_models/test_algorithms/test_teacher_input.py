# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The teacher sees what its own preprocessor would have made of the raw images."""

import copy

import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from mmfakd.models.algorithms.teacher_input import TeacherInput

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
# What the pairs below differ in: mean and std, order of channels, both, one value
# for all channels, no normalisation at all.
NORMS = [
    dict(IMAGENET, to_rgb=True),
    dict(IMAGENET, to_rgb=False),
    dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False),
    dict(mean=[127.5], std=[127.5], to_rgb=True),
    dict(mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
]


def images(*sizes):
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


def det(to_rgb=False, **kwargs):
    return DetDataPreprocessor(bgr_to_rgb=to_rgb, **kwargs)


def det_batch(raw):
    samples = [
        DetDataSample(metainfo=dict(img_shape=tuple(image.shape[-2:]))) for image in raw
    ]
    return dict(inputs=list(raw), data_samples=samples)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('teacher', NORMS)
@pytest.mark.parametrize('student', NORMS)
def test_equals_the_teachers_own_preprocessor_of_mmpretrain(student, teacher):
    student, teacher = ClsDataPreprocessor(**student), ClsDataPreprocessor(**teacher)
    batch = dict(inputs=torch.stack(images((5, 6), (5, 6))))
    seen = student(copy.deepcopy(batch))['inputs']
    expected = teacher(copy.deepcopy(batch))['inputs']
    close(TeacherInput(student, teacher)(seen, None), expected)


@pytest.mark.parametrize('pad_value', [0, 114])
@pytest.mark.parametrize('teacher', [*NORMS, dict(to_rgb=True), dict()])
@pytest.mark.parametrize('student', [*NORMS, dict()])
def test_equals_the_teachers_own_preprocessor_of_mmdet(student, teacher, pad_value):
    """Images of several sizes; without mean and std a detector takes them raw."""
    student = det(**student, pad_size_divisor=8)
    teacher = det(**teacher, pad_size_divisor=8, pad_value=pad_value)
    raw = images((13, 16), (9, 5))
    made = student(det_batch(raw))
    expected = teacher(det_batch(raw))['inputs']
    assert expected.shape == (2, 3, 16, 16)
    seen = made['inputs'].clone()
    actual = TeacherInput(student, teacher)(seen, made['data_samples'])
    close(actual, expected)
    # Exact, not about: convolutions see the border.
    assert (actual[1, :, 9:] == pad_value).all()
    assert (actual[1, :, :, 5:] == pad_value).all()
    # The student's own batch is left alone.
    assert torch.equal(seen, made['inputs'])


def test_pairs_across_the_libraries():
    student, teacher = ClsDataPreprocessor(**NORMS[0]), det(**NORMS[2])
    raw = torch.stack(images((8, 8)))
    seen = student(dict(inputs=raw))['inputs']
    close(
        TeacherInput(student, teacher)(seen, None), teacher(dict(inputs=raw))['inputs']
    )


def test_teacher_as_a_dict():
    student = ClsDataPreprocessor(**NORMS[0])
    raw = torch.stack(images((4, 4)))
    seen = student(dict(inputs=raw))['inputs']
    for norm in NORMS:
        expected = ClsDataPreprocessor(**norm)(dict(inputs=raw))['inputs']
        close(TeacherInput(student, norm)(seen, None), expected)


@pytest.mark.parametrize(
    ('given', 'whole'),
    [
        (dict(to_rgb=False), NORMS[0]),
        (dict(mean=[127.5]), dict(NORMS[0], mean=[127.5] * 3)),
        (dict(std=[1.0]), dict(NORMS[0], std=[1.0] * 3)),
        (dict(bgr_to_rgb=True, mean=[1, 2, 3]), dict(NORMS[0], mean=[1, 2, 3])),
    ],
)
def test_a_dict_says_no_more_than_it_holds(given, whole):
    """What it leaves out is as the student's."""
    student = ClsDataPreprocessor(**NORMS[0])
    raw = torch.stack(images((4, 4)))
    seen = student(dict(inputs=raw))['inputs']
    expected = ClsDataPreprocessor(**whole)(dict(inputs=raw))['inputs']
    if given == dict(to_rgb=False):
        expected = expected.flip(1)
    close(TeacherInput(student, given)(seen, None), expected)


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [
        (ClsDataPreprocessor(**NORMS[0]), ClsDataPreprocessor(**NORMS[0])),
        (det(**NORMS[0]), ClsDataPreprocessor(**NORMS[0])),
        (det(pad_value=114), det(pad_value=114)),
        # A config that keeps its preprocessor at the top level says nothing here.
        (ClsDataPreprocessor(**NORMS[0]), ClsDataPreprocessor()),
        (det(**NORMS[0]), BaseDataPreprocessor()),
        (BaseDataPreprocessor(), BaseDataPreprocessor()),
        (ClsDataPreprocessor(**NORMS[0]), dict()),
    ],
)
def test_identity(student, teacher):
    teacher_input = TeacherInput(student, teacher)
    assert teacher_input.is_identity
    batch = torch.rand(2, 3, 4, 4)
    assert teacher_input(batch, None) is batch
    assert 'identity' in repr(teacher_input)


def test_only_the_padding_differs():
    student, teacher = det(**NORMS[0]), det(**NORMS[0], pad_value=7)
    raw = images((4, 4), (2, 4))
    made = student(det_batch(raw))
    before = made['inputs'].clone()
    actual = TeacherInput(student, teacher)(made['inputs'], made['data_samples'])
    assert torch.equal(actual, teacher(det_batch(raw))['inputs'])
    assert torch.equal(made['inputs'], before)


def test_grey_images():
    student = ClsDataPreprocessor(mean=[77.8], std=[95.9])
    teacher = ClsDataPreprocessor(mean=[0], std=[255])
    raw = torch.randint(0, 256, (2, 1, 8, 8))
    seen = student(dict(inputs=raw))['inputs']
    close(TeacherInput(student, teacher)(seen, None), raw / 255)


def test_mixup_commutes():
    """Both see the same mixture of the same two images."""
    torch.manual_seed(0)
    student = ClsDataPreprocessor(
        **NORMS[0],
        num_classes=10,
        batch_augments=dict(augments=dict(type='Mixup', alpha=0.8)),
    )
    teacher = ClsDataPreprocessor(
        **NORMS[2],
        num_classes=10,
        batch_augments=dict(augments=dict(type='Mixup', alpha=0.8)),
    )
    raw = torch.stack(images(*[(6, 6)] * 4))

    def mixed(preprocessor):
        torch.manual_seed(3)
        samples = [DataSample().set_gt_label(i) for i in range(4)]
        np.random.seed(3)
        return preprocessor(dict(inputs=raw, data_samples=samples), training=True)

    seen, expected = mixed(student)['inputs'], mixed(teacher)['inputs']
    plain = teacher(dict(inputs=raw))['inputs']
    assert not torch.allclose(expected, plain)
    close(TeacherInput(student, teacher)(seen, None), expected)


def test_resized_batch():
    """mmdet's batch resizing tells the new size of the image."""
    student, teacher = det(**NORMS[0]), det(**NORMS[2])
    made = student(det_batch(images((8, 8), (4, 4))))
    for sample in made['data_samples']:
        height, width = sample.img_shape
        sample.set_metainfo(
            dict(img_shape=(height // 2, width // 2), batch_input_shape=(4, 4))
        )
    seen = made['inputs'][..., ::2, ::2]
    actual = TeacherInput(student, teacher)(seen, made['data_samples'])
    assert (actual[1, :, 2:] == 0).all() and (actual[1, :, :, 2:] == 0).all()
    assert actual[1, :, :2, :2].ne(0).all()


def test_numbers_of_channels_differ():
    five = ClsDataPreprocessor(mean=[1.0] * 5, std=[1.0] * 5)
    with pytest.raises(ValueError) as error:
        TeacherInput(five, ClsDataPreprocessor(**NORMS[0]))
    assert "student's normalisation has 5 channels, the teacher's 3" in str(error.value)
    assert 'teacher_preprocessor=dict(' in str(error.value)


def test_batch_of_another_number_of_channels():
    """A grey student and a colour teacher: broadcasting would hide it."""
    grey = ClsDataPreprocessor(mean=[77.8], std=[95.9])
    teacher_input = TeacherInput(grey, ClsDataPreprocessor(**NORMS[0]))
    with pytest.raises(ValueError, match='batch has 1 channels, .* teacher 3'):
        teacher_input(torch.rand(2, 1, 8, 8), None)


def test_nothing_in_the_state_dict():
    teacher_input = TeacherInput(det(**NORMS[0]), det(**NORMS[2]))
    assert not teacher_input.is_identity
    assert not teacher_input.state_dict()
    assert not list(teacher_input.parameters())
    assert 'scale=[58.' in repr(teacher_input) or 'scale=[57.' in repr(teacher_input)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_follows_the_models_dtype(dtype):
    student, teacher = ClsDataPreprocessor(**NORMS[0]), ClsDataPreprocessor(**NORMS[2])
    teacher_input = TeacherInput(student, teacher)
    batch = torch.rand(2, 3, 4, 4)
    expected = teacher_input(batch, None)
    actual = teacher_input.to(dtype)(batch.to(dtype), None)
    assert actual.dtype == dtype
    precision = torch.finfo(dtype).eps * 256
    torch.testing.assert_close(
        actual.float(), expected, rtol=precision, atol=precision * 10
    )
