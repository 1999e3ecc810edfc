# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What MMEngine's preprocessor does to images, mmpretrain's does for a classifier."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.registry import MODELS

from mmfakd.model_zoo.classifier_preprocessor import suit_classifier
from tests.helpers.toy import batch, classifier, feature_distill

NUMBERS = dict(mean=[10.0, 20.0, 30.0], std=[2.0, 3.0, 4.0])
SETTINGS = [
    dict(NUMBERS, bgr_to_rgb=True),
    dict(NUMBERS, rgb_to_bgr=True, pad_size_divisor=16, pad_value=7),
    dict(mean=[5.0], std=[50.0], non_blocking=True),
    dict(bgr_to_rgb=False),
    dict(),
]


class Plain(BaseModel):
    """A model of no library."""


@pytest.mark.parametrize('settings', SETTINGS)
def test_a_distillation_of_mmrazor_teaches(settings):
    """The teacher sees what the preprocessor of its own training makes."""
    given = dict(type='ImgDataPreprocessor', **settings)
    teacher = dict(
        _scope_='mmrazor',
        type='SingleTeacherDistill',
        data_preprocessor=given,
        architecture=classifier(width=8),
        teacher=classifier(),
        distiller=dict(type='ConfigurableDistiller'),
    )
    ours = dict(mean=[1.0] * 3, std=[100.0] * 3, to_rgb=True)
    model = feature_distill(teacher=teacher, data_preprocessor=ours)
    data = batch()
    seen = model.data_preprocessor(copy.deepcopy(data))['inputs']
    settings = {k: v for k, v in settings.items() if k != 'pad_size_divisor'}
    expected = ImgDataPreprocessor(**settings)(dict(inputs=data['inputs']))['inputs']
    found = model.teacher_input(seen, None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert given == teacher['data_preprocessor']


@pytest.mark.parametrize('kind', ['mmengine.ImgDataPreprocessor', ImgDataPreprocessor])
@pytest.mark.parametrize('settings', SETTINGS)
def test_a_batch_of_any_sizes(settings, kind):
    """Padding, too, is the same; mmrazor's wrapper may stand around the model."""
    cfg = ConfigDict(classifier(), data_preprocessor=dict(settings, type=kind))
    cfg = ConfigDict(type='mmrazor.sub_model', cfg=cfg)
    suit_classifier(cfg)
    built = MODELS.build(cfg.cfg).data_preprocessor
    inputs = [torch.randint(0, 256, (3, *size)) for size in ((8, 9), (10, 7))]
    expected = ImgDataPreprocessor(**settings)(dict(inputs=inputs))['inputs']
    torch.testing.assert_close(built(dict(inputs=inputs))['inputs'], expected)


@pytest.mark.parametrize(
    'cfg',
    [
        classifier(),
        classifier(data_preprocessor=dict(NUMBERS, num_classes=10)),
        classifier(data_preprocessor=dict(type='ClsDataPreprocessor', **NUMBERS)),
        classifier(data_preprocessor=dict(type='NotRegistered')),
        dict(type=Plain, data_preprocessor=dict(type='ImgDataPreprocessor', **NUMBERS)),
        dict(type='NotRegistered', data_preprocessor=dict(type='ImgDataPreprocessor')),
    ],
)
def test_all_else_stays_as_it_is(cfg):
    changed = ConfigDict(copy.deepcopy(cfg))
    suit_classifier(changed)
    assert changed == cfg
