# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import warnings

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.backbones import CIFARVGG
from mmfakd.utils import convert_mdistiller_state_dict, mdistiller_model_cfg
from tests.helpers.golden import distance
from tests.helpers.mdistiller_zoo import random_images, zoo_golden, zoo_state_dict


@pytest.mark.parametrize('depth', [8, 11, 13, 16, 19])
def test_depth_counts_convolutions_and_three_linear_layers(depth):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model = CIFARVGG(depth)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) + 3 == depth
    # No bias in front of batch norm.
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_larger_images_are_halved_once_more():
    """As the published network does with 64 x 64 pixels."""
    golden = zoo_golden('vgg8_64px')
    cfg = mdistiller_model_cfg('vgg8')
    cfg['backbone']['pool_last'] = True
    model = MODELS.build(cfg).eval()
    model.load_state_dict(convert_mdistiller_state_dict(zoo_state_dict('vgg8'), 'vgg8'))
    x = random_images(64, 2, 64)
    with torch.no_grad():
        assert model.backbone(x)[0].shape == (2, 512, 4, 4)
        (pooled,) = model.extract_feat(x)
        assert distance(pooled, golden['pooled']) < 1e-4
        assert distance(model(x), golden['logits']) < 1e-4
        # The argument decides, not the size.
        assert model.backbone(torch.rand(1, 3, 32, 32))[0].shape == (1, 512, 2, 2)
        assert CIFARVGG(8)(x)[0].shape == (2, 512, 8, 8)


def test_unknown_depth():
    message = r'got depth=12, expected one of \[8, 11, 13, 16, 19\]'
    with pytest.raises(ValueError, match=message):
        CIFARVGG(12)
