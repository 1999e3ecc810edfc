# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether a batch has been normalised, once, as its model is used to."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmfakd.models.algorithms.input_statistics import (
    input_statistics,
    judge_input,
    judge_told,
)
from tests.helpers.toy import batch, feature_distill, losses_of

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
SMALL = {key: [n / 255 for n in value] for key, value in IMAGENET.items()}


class Model(nn.Module):
    """A model, as far as its input goes."""

    def __init__(self, mean=None, std=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        numbers = dict(mean=mean, std=std)
        for name, values in numbers.items():
            if values is not None:
                numbers[name] = torch.tensor(values).view(-1, 1, 1)
        self.data_preprocessor = SimpleNamespace(**numbers)


class YOLOX(Model):
    """Takes images as they are."""


def images(low=0, high=256):
    random = torch.Generator().manual_seed(0)
    return torch.randint(low, high, (4, 3, 16, 16), generator=random).float()


def normalise(x, mean, std):
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def distorted(x):
    """Brightness and contrast as mmdet changes them, beyond 0 and 255."""
    return (x * 1.5 - 32)[:, [2, 0, 1]]


CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0])
FINE = {
    'imagenet': (images(), IMAGENET),
    'small': (images() / 255, SMALL),
    'caffe': (images(), CAFFE),
    'to 0..1': (images(), dict(mean=[0.0] * 3, std=[255.0] * 3)),
    'distorted': (distorted(images()), IMAGENET),
    'dark': (images(0, 60), IMAGENET),
    'bright': (images(200, 256), IMAGENET),
    '16 bit': (images() * 257, dict(mean=[3e4] * 3, std=[1e4] * 3)),
    'as they are, said so': (images(), dict(mean=[0.0] * 3, std=[1.0] * 3)),
    'a dummy': (torch.zeros(4, 3, 16, 16), IMAGENET),
}


@pytest.mark.parametrize(('x', 'numbers'), FINE.values(), ids=FINE)
def test_what_is_fine(x, numbers):
    assert judge_input(normalise(x, **numbers), None, Model(**numbers), 'student') == ''


def test_what_is_fine_without_numbers():
    assert judge_input(images() / 255, None, Model(), 'student') == ''
    assert judge_input(normalise(images(), **IMAGENET), None, Model(), 'student') == ''
    assert judge_input(images(), None, YOLOX(), 'student') == ''


@pytest.mark.parametrize('numbers', [IMAGENET, SMALL, CAFFE], ids=['255', '1', 'caffe'])
def test_normalised_twice(numbers):
    x = images() if numbers is not SMALL else images() / 255
    twice = normalise(normalise(x, **numbers), **numbers)
    text = judge_input(twice, None, Model(**numbers), 'student')
    assert 'the batch that the student gets has been normalised twice' in text
    assert 'Take `Normalize` out of the pipeline' in text


def test_divided_by_255_before():
    x = normalise(images() / 255, **IMAGENET)
    text = judge_input(x, None, Model(**IMAGENET), 'teacher')
    assert text.startswith('the batch that the teacher gets was in 0..1 before it was')


@pytest.mark.parametrize('scale', [1, 255], ids=['0..255', '0..1'])
def test_not_normalised_although_there_are_numbers(scale):
    text = judge_input(images() / scale, None, Model(**IMAGENET), 'student')
    assert 'is not normalised by these numbers' in text


def test_numbers_of_another_scale():
    x = normalise(images(), **SMALL)
    text = judge_input(x, None, Model(**SMALL), 'student')
    assert 'mean and std are meant for images in 0..1 and the images are' in text


def test_as_they_are_without_a_word():
    text = judge_input(images(), None, Model(), 'student')
    assert 'has values from 0 to 255' in text and 'has no `mean` and `std`' in text


def test_padding_does_not_count():
    """A batch of mmdet's: one image is smaller than the batch."""
    x = normalise(images(), **IMAGENET)
    x[0, :, 4:] = 0
    x[0, :, :, 8:] = 0
    shapes = [(4, 8), *[(16, 16)] * 3]
    samples = [
        SimpleNamespace(img_shape=shape, metainfo=dict(batch_input_shape=(16, 16)))
        for shape in shapes
    ]
    found = input_statistics(x, samples)
    pixels = torch.cat([x[0, :, :4, :8].flatten(1), *x[1:].flatten(2)], dim=1)
    assert found.mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-5)
    assert found.std == pytest.approx(pixels.std(1, unbiased=False).tolist(), abs=1e-5)
    assert judge_input(x, samples, Model(**IMAGENET), 'student') == ''


def test_what_is_not_finite():
    x = normalise(images(), **IMAGENET)
    told = torch.zeros(1), torch.tensor(0.5)
    assert 'normalised twice' in judge_told(x, None, *told)
    x[0, 0, 0, 0] = float('nan')
    assert 'not finite' in judge_input(x, None, Model(**IMAGENET), 'student')
    # Once is enough.
    assert judge_told(x, None, *told) == ''


UNIT = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ('told', 'wrong'),
    [
        (UNIT, True),
        (dict(UNIT, to_rgb=False), True),
        (dict(mean=0.5, std=0.25), True),
        (IMAGENET, False),
        (CAFFE, False),
        (dict(mean=127.5, std=127.5), False),
        # Half of it is the student's, and so is what is left out.
        (dict(std=UNIT['std']), False),
        (dict(mean=[0.0] * 3, std=[1.0] * 3), False),
        (dict(to_rgb=False), False),
        ({}, False),
    ],
)
def test_numbers_that_the_teacher_is_told(told, wrong):
    """By `teacher_preprocessor`, as if its own config had them."""
    preprocessor = dict(type='ClsDataPreprocessor', to_rgb=True, **IMAGENET)
    model = feature_distill(
        data_preprocessor=preprocessor, teacher_preprocessor=dict(told)
    )
    torch.manual_seed(0)
    losses_of(model, batch(16))
    said = [w for w in model.first_step.warnings if w.startswith('The batch')]
    assert len(said) == wrong
    for text in said:
        assert text.startswith('The batch that the teacher gets is not normalised by')
        assert '`teacher_preprocessor` has mean=[0.' in text
        assert 'in 0..1 and the images are in 0..255' in text
