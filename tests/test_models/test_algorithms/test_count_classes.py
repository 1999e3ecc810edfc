# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The number of classes of stock models, wherever they keep it."""

import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.models.algorithms.count_classes import count_classes
from tests.helpers.toy import classifier


def build(path):
    cfg, _ = resolve_model_cfg(dict(cfg_path=path))
    # Nothing is computed, so nothing is allocated either.
    with torch.device('meta'):
        return MODELS.build(cfg)


@pytest.mark.parametrize(
    ('path', 'count'),
    [
        ('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k-384px.py', 1000),
        ('mmpretrain::vgg/vgg11_8xb32_in1k.py', 1000),  # a head without the number
        ('mmpretrain::lenet/lenet5_mnist.py', 10),
        ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 80),
        ('mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', 20),
        ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 80),  # a list of heads
        ('mmdet::solo/solo_r50_fpn_1x_coco.py', 80),  # masks alone
    ],
)
def test_stock_models(path, count):
    assert count_classes(build(path)) == count


def test_own_number():
    assert count_classes(MODELS.build(classifier(num_classes=7))) == 7


def test_a_model_that_does_not_say():
    assert count_classes(torch.nn.Linear(3, 5)) is None
    model = MODELS.build(classifier())
    model.head = None
    assert count_classes(model) is None
