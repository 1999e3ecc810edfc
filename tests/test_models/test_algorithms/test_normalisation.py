# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Preprocessors of any library are understood, or it is said that they are not."""

import copy

import pytest
import torch
from mmdet.models import DetDataPreprocessor, MultiBranchDataPreprocessor
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmengine.structures import PixelData
from mmpretrain.models import ClsDataPreprocessor

from mmfakd.models.algorithms.teacher_input import TeacherInput
from tests.helpers.toy import batch, classifier, feature_distill, losses_of

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
OTHER = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0])
FOUR = dict(mean=[10.0, 20.0, 30.0, 40.0], std=[1.0, 2.0, 3.0, 4.0])


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


def images(*sizes, channels=3):
    return [
        torch.randint(0, 256, (channels, *size), dtype=torch.uint8) for size in sizes
    ]


def seg(**kwargs):
    mmseg = pytest.importorskip('mmseg.models')
    return mmseg.SegDataPreProcessor(size_divisor=8, **kwargs)


def seg_batch(raw):
    from mmseg.structures import SegDataSample

    samples = []
    for image in raw:
        size = tuple(image.shape[-2:])
        sample = SegDataSample(metainfo=dict(img_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size).long())
        samples.append(sample)
    return dict(inputs=list(raw), data_samples=samples)


@pytest.mark.parametrize('student', [dict(IMAGENET), dict(OTHER, bgr_to_rgb=True), {}])
@pytest.mark.parametrize(
    'teacher',
    [dict(IMAGENET, bgr_to_rgb=True, pad_val=7), dict(OTHER, rgb_to_bgr=True), {}],
)
def test_mmsegs(student, teacher):
    student, teacher = seg(**student), seg(**teacher)
    raw = images((13, 16), (16, 10))
    expected = teacher(seg_batch(raw), True)['inputs']
    made = student(seg_batch(raw), True)
    mapped = TeacherInput(student, teacher)(made['inputs'], made['data_samples'])
    close(mapped, expected)


def test_mmsegs_and_mmdets():
    student = DetDataPreprocessor(**OTHER, pad_value=3, pad_size_divisor=8)
    teacher = seg(**IMAGENET, bgr_to_rgb=True, pad_val=5)
    raw = images((13, 16), (16, 10))
    expected = teacher(seg_batch(raw), True)['inputs']
    made = student(seg_batch(raw), False)
    close(
        TeacherInput(student, teacher)(made['inputs'], made['data_samples']), expected
    )


def test_branches():
    inner = dict(type='mmdet.DetDataPreprocessor', **IMAGENET, bgr_to_rgb=True)
    teacher = MultiBranchDataPreprocessor(inner)
    student = DetDataPreprocessor(**OTHER)
    raw = torch.stack(images((4, 5)))
    seen = student(dict(inputs=list(raw)))['inputs']
    expected = teacher.data_preprocessor(dict(inputs=list(raw)))['inputs']
    close(TeacherInput(student, teacher)(seen, None), expected)


@pytest.mark.parametrize('stale', [False, True])
def test_padding_that_only_the_samples_tell(stale):
    """MMEngine's preprocessor writes nothing; `img_shape` may be of an older size."""
    student = ImgDataPreprocessor(**OTHER, pad_value=2, pad_size_divisor=8)
    teacher = ImgDataPreprocessor(**IMAGENET, pad_value=9, pad_size_divisor=8)
    raw = images((16, 16), (16, 16)) if stale else images((13, 16), (16, 10))
    expected = teacher(dict(inputs=list(raw)))['inputs']
    samples = seg_batch(images((13, 16), (16, 10)))['data_samples']
    seen = student(dict(inputs=list(raw)))['inputs']
    close(TeacherInput(student, teacher)(seen, samples), expected)


class Silent(BaseDataPreprocessor):
    """Normalises, and does not say how."""

    def __init__(self, shift=1.0):
        super().__init__()
        self.shift = shift

    def forward(self, data, training=False):
        return dict(data, inputs=data['inputs'] - self.shift)


class Telling(Silent):
    def __init__(self):
        super().__init__()
        self.mean, self.std, self.to_rgb = [1.0, 1.0, 1.0], [2.0], False


def test_own_classes():
    plain = ClsDataPreprocessor(**IMAGENET)
    with pytest.raises(
        ValueError, match="the teacher's data preprocessor, Silent, has"
    ):
        TeacherInput(plain, Silent())
    with pytest.raises(ValueError, match="the student's data preprocessor, Silent"):
        TeacherInput(Silent(), plain)
    with pytest.raises(ValueError, match='teacher_preprocessor=dict'):
        TeacherInput(Silent(1.0), Silent(2.0))
    assert TeacherInput(Silent(), Silent()).is_identity
    assert TeacherInput(Silent(), {}).is_identity
    assert TeacherInput(Silent(), BaseDataPreprocessor()).is_identity
    raw = torch.rand(2, 3, 4, 4)
    student = ClsDataPreprocessor(mean=[0.0], std=[1.0])
    close(TeacherInput(student, Telling())(raw, None), (raw - 1) / 2)


@pytest.mark.parametrize(
    ('given', 'told'),
    [
        (dict(mena=[1]), "Near names: 'mean'"),
        (dict(mean=dict(a=1)), 'mean of teacher_preprocessor'),
        (dict(std=[0.0]), 'expected numbers above 0'),
        (dict(mean=[float('nan')]), 'finite'),
        (dict(channels='012'), 'expected indices'),
        (dict(channels=[]), 'expected indices'),
        (dict(channels=[0, True]), 'expected indices'),
        (dict(channels=[0, -1]), 'expected indices'),
        (dict(channels=[0, 1, 4]), 'have 4 channel.*from 0 to 3'),
        (dict(channels=[0, 1, 2], to_rgb=True), r'channels=\[2, 1, 0\]'),
        (dict(channels=[0, 1], mean=[1.0, 2.0, 3.0]), 'cannot see the same image'),
    ],
)
def test_mistakes_in_a_dict(given, told):
    with pytest.raises(ValueError, match=told):
        TeacherInput(ClsDataPreprocessor(**FOUR), given)


def test_arguments_of_a_whole_preprocessor_may_stand_there():
    whole = dict(
        type='SegDataPreProcessor', **IMAGENET, bgr_to_rgb=True, pad_val=4, size=(8, 8)
    )
    found = TeacherInput(ClsDataPreprocessor(**OTHER), whole)
    assert found.flip and found.pad_value == 4


@pytest.mark.parametrize('channels', [[0, 1, 2], [2, 1, 0], [3, 0, 3], [1]])
def test_channels_of_four(channels):
    student = ClsDataPreprocessor(**FOUR)
    count = len(channels)
    norm = dict(mean=[5.0] * count, std=[2.0, 3.0, 4.0][:count])
    raw = torch.stack(images((4, 5), (4, 5), channels=4))
    seen = student(dict(inputs=raw))['inputs']
    expected = ClsDataPreprocessor(**norm)(dict(inputs=raw[:, channels]))['inputs']
    given = dict(norm, channels=channels)
    close(TeacherInput(student, given)(seen, None), expected)
    # What the dict leaves out is the teacher's own.
    own = ClsDataPreprocessor(**norm)
    close(TeacherInput(student, dict(channels=channels), own)(seen, None), expected)
    # Nobody says: as the student's.
    found = TeacherInput(student, dict(channels=channels), ClsDataPreprocessor())
    close(found(seen, None), seen[:, channels])
    assert f'channels={channels}' in repr(found)


def test_grey_images_for_a_teacher_of_colours():
    student = ClsDataPreprocessor(mean=[7.0], std=[3.0])
    raw = torch.stack(images((4, 5), channels=1))
    seen = student(dict(inputs=raw))['inputs']
    teacher = ClsDataPreprocessor(**IMAGENET)
    expected = teacher(dict(inputs=raw.expand(-1, 3, -1, -1)))['inputs']
    close(
        TeacherInput(student, dict(channels=[0, 0, 0]), teacher)(seen, None), expected
    )
    with pytest.raises(ValueError, match='have 1 channel'):
        TeacherInput(student, dict(channels=[0, 1, 2]), teacher)(seen, None)


def test_a_training_step_with_four_channels():
    preprocessor = dict(type='mmpretrain.ClsDataPreprocessor')
    cfg = dict(
        architecture=classifier(
            in_channels=4, data_preprocessor=dict(preprocessor, **FOUR)
        ),
        teacher=classifier(width=8, data_preprocessor=dict(preprocessor, **IMAGENET)),
    )
    data = batch(channels=4)
    model = feature_distill(**cfg, teacher_preprocessor=dict(channels=[0, 1, 2]))
    seen = []
    model.teacher.backbone.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    losses_of(model, copy.deepcopy(data))
    expected = model.teacher.data_preprocessor(dict(inputs=data['inputs'][:, :3]))
    close(seen[0], expected['inputs'])
    with pytest.raises(ValueError, match=r'teacher_preprocessor=dict\(channels=\[0, 1'):
        feature_distill(**cfg)
    teacher = classifier(width=8)
    with pytest.raises(ValueError, match=r'dict\(channels=\[0, 1, 2\]\)`'):
        losses_of(feature_distill(**dict(cfg, teacher=teacher)), data)
