# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
from mmpretrain.models.backbones.resnet import BasicBlock

from mmfakd.models.backbones import CIFARResNet

# Parameters without the classifier of 100 classes, from the literature's totals.
PARAMETERS = {8: 83_892, 14: 181_108, 20: 278_324, 32: 472_756, 44: 667_188}
PARAMETERS.update({56: 861_620, 110: 1_736_564})


@pytest.mark.parametrize('depth', PARAMETERS)
def test_depth_counts_layers(depth):
    model = CIFARResNet(depth)
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock)]
    assert 2 * len(blocks) + 2 == depth
    count = sum(p.numel() for p in model.parameters())
    assert count + 64 * 100 + 100 == PARAMETERS[depth]


def test_wide_network():
    model = CIFARResNet(8, stem_channels=32, base_channels=64)
    # Its first stage, too, changes the number of channels.
    assert model.layer1[0].downsample is not None
    assert model.feat_dim == 256


@pytest.mark.parametrize('depth', [18, 50, 26, '20'])
def test_unknown_depth(depth):
    message = rf'got depth={depth}, expected one of \[8, 14, 20, 32, 44, 56, 110\]'
    with pytest.raises(ValueError, match=message):
        CIFARResNet(depth)
