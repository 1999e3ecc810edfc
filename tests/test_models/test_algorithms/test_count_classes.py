# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The number of classes of stock models, wherever they keep it."""

import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.models.algorithms.count_classes import (
    count_classes,
    is_panoptic,
    predicted_counts,
)
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


@pytest.mark.parametrize(
    ('path', 'labels', 'predicted'),
    [
        ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 80, (133,)),
        ('maskformer/maskformer_r50_ms-16xb1-75e_coco.py', 133, (133,)),
        # Instances of things beside the panoptic map.
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', 133, (133, 80)),
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 80, (80,)),
    ],
)
def test_panoptic_models(path, labels, predicted):
    """A head may know things alone; the predictions have things and stuff."""
    model = build(f'mmdet::{path}')
    assert is_panoptic(model)
    assert count_classes(model) == labels
    assert predicted_counts(model) == predicted


@pytest.mark.parametrize(
    ('head', 'count', 'predicted'),
    [
        (dict(num_classes=1, out_channels=1), 2, (2, 1)),
        (dict(num_classes=2, out_channels=1), 2, (2,)),
        (dict(num_classes=3, out_channels=3), 3, (3,)),
        # A softmax of one channel tells nothing apart.
        (dict(num_classes=1, out_channels=1, use_sigmoid=False), 1, (1,)),
    ],
)
def test_segmentors_of_one_channel(head, count, predicted):
    model = torch.nn.Module()
    model.decode_head = torch.nn.Module()
    model.decode_head.loss_decode = torch.nn.Module()
    model.decode_head.loss_decode.use_sigmoid = head.pop('use_sigmoid', True)
    vars(model.decode_head).update(head)
    assert count_classes(model) == count
    assert predicted_counts(model) == predicted


def test_own_number():
    model = MODELS.build(classifier(num_classes=7))
    assert count_classes(model) == 7 and predicted_counts(model) == (7,)
    assert not is_panoptic(model)


def test_a_model_that_does_not_say():
    assert count_classes(torch.nn.Linear(3, 5)) is None
    assert predicted_counts(torch.nn.Linear(3, 5)) == ()
    model = MODELS.build(classifier())
    model.head = None
    assert count_classes(model) is None
