# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The teacher sees what its own preprocessor would have made of the raw images."""

import copy

import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from mmfakd.model_zoo.resolve import resolve_model_cfg
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


# Normalisations, paddings and orders of channels as the zoos have them.
ZOO = [
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py',  # BGR, mean alone
    'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',  # RGB, multiples of 32
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',  # the same, multiples of 1
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',  # BGR, mean and std
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',  # as it is
    'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py',  # RGB over 255
    'mmpretrain::resnet/resnet34_8xb32_in1k.py',
    'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k-384px.py',  # 127.5
    'mmpretrain::regnet/regnetx-400mf_8xb128_in1k.py',  # BGR
    'mmpretrain::mobilevit/mobilevit-small_8xb128_in1k.py',  # BGR over 255
]


@pytest.fixture(scope='module')
def zoo():
    """The data preprocessors of the configs."""
    built = {}
    for path in ZOO:
        model, _ = resolve_model_cfg(dict(cfg_path=path))
        cfg = dict(model.data_preprocessor)
        kind = 'Det' if path.startswith('mmdet') else 'Cls'
        cfg['type'] = f'{model._scope_}.{kind}DataPreprocessor'
        built[path] = MODELS.build(cfg)
    return built


@pytest.mark.parametrize('teacher', ZOO)
@pytest.mark.parametrize('student', ZOO)
def test_real_configs_both_ways(zoo, student, teacher):
    """Within 1e-5 of the teacher's own batch, as far as the student's goes."""
    raw = images((37, 60), (50, 41))
    made = zoo[student](det_batch(raw) if 'mmdet' in student else dict(inputs=raw))
    own = zoo[teacher](det_batch(raw))['inputs']
    map_input = TeacherInput(zoo[student], zoo[teacher])
    seen = map_input(made['inputs'], made.get('data_samples'))
    assert seen.shape == made['inputs'].shape
    if 'mmdet' in student:
        height, width = (min(a, b) for a, b in zip(seen.shape[2:], own.shape[2:]))
        pairs = [(seen[..., :height, :width], own[..., :height, :width])]
        assert not seen[..., height:, :].any() and not seen[..., width:].any()
    else:
        # Classifiers crop to one size; where they pad, no sample says so.
        sizes = [image.shape[1:] for image in raw]
        pairs = [(s[:, :h, :w], o[:, :h, :w]) for s, o, (h, w) in zip(seen, own, sizes)]
    for actual, expected in pairs:
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


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


def test_only_three_channels_are_swapped():
    """As mmpretrain's preprocessor does it: others have no red and blue."""
    mean, std = [10.0, 20.0, 30.0, 40.0], [1.0, 2.0, 3.0, 4.0]
    student = ClsDataPreprocessor(mean=mean, std=std, to_rgb=False)
    teacher = ClsDataPreprocessor(mean=mean[::-1], std=std[::-1], to_rgb=True)
    raw = torch.randint(0, 256, (2, 4, 8, 8))
    seen = student(dict(inputs=raw))['inputs']
    expected = teacher(dict(inputs=raw))['inputs']
    close(TeacherInput(student, teacher)(seen, None), expected)


@pytest.mark.parametrize('student', [dict(mean=[9.0], std=[2.0, 3.0, 4.0]), dict()])
def test_one_mean_for_all_channels_and_swapped_ones(student):
    student = ClsDataPreprocessor(**student, to_rgb=False)
    teacher = ClsDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[5.0], to_rgb=True)
    raw = torch.stack(images((4, 4)))
    seen = student(dict(inputs=raw))['inputs']
    expected = teacher(dict(inputs=raw))['inputs']
    close(TeacherInput(student, teacher)(seen, None), expected)


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


def test_batch_resized_at_random_as_yolox_does_it():
    """Resizing commutes with the map, but where it mixes image and padding."""
    MessageHub.get_instance('resize').update_info('iter', 0)
    resize = dict(type='mmdet.BatchSyncRandomResize', random_size_range=(32, 32))
    student = det(pad_size_divisor=8, batch_augments=[resize])
    student.batch_augments[0]._input_size = (32, 32)
    teacher = det(**NORMS[0], pad_size_divisor=8)
    data = det_batch(images((16, 16), (16, 8)))
    for sample in data['data_samples']:
        sample.gt_instances = InstanceData(bboxes=torch.ones(1, 4))
    own = teacher(copy.deepcopy(data))['inputs']
    expected = torch.nn.functional.interpolate(own, (32, 32), mode='bilinear')
    made = student(data, training=True)
    assert made['data_samples'][1].img_shape == (32, 16)
    seen = TeacherInput(student, teacher)(made['inputs'], made['data_samples'])
    close(seen[0], expected[0])
    close(seen[1, :, :, :15], expected[1, :, :, :15])
    assert not seen[1, :, :, 16:].any()


def test_numbers_of_channels_differ():
    five = ClsDataPreprocessor(mean=[1.0] * 5, std=[1.0] * 5)
    with pytest.raises(ValueError) as error:
        TeacherInput(five, ClsDataPreprocessor(**NORMS[0]))
    assert "student's normalisation has 5 channels, the teacher's 3" in str(error.value)
    assert 'teacher_preprocessor=dict(' in str(error.value)


@pytest.mark.parametrize(
    ('channels', 'advice'),
    [
        (1, r'takes 3 channels, .*\(channels=\[0, 0, 0\]\).*takes 1, .*mean='),
        (4, r'takes 3 channels, .*\(channels=\[0, 1, 2\]\).*takes 4, .*mean='),
        (2, r'Give `teacher_preprocessor=dict\(\.\.\.\)` with `mean='),
    ],
)
def test_batch_of_another_number_of_channels(channels, advice):
    """A grey student and a colour teacher: broadcasting would hide it."""
    grey = ClsDataPreprocessor(mean=[77.8], std=[95.9])
    teacher_input = TeacherInput(grey, ClsDataPreprocessor(**NORMS[0]))
    message = rf'batch has {channels} channel\(s\), .* teacher 3\..*{advice}'
    with pytest.raises(ValueError, match=message):
        teacher_input(torch.rand(2, channels, 8, 8), None)


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
