# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch
from mmpretrain.models.backbones.shufflenet_v2 import InvertedResidual

from mmfakd.models.backbones import CIFARShuffleNetV2
from mmfakd.models.backbones.cifar_shufflenet_v2 import ShuffleBlock


def test_block_is_mmpretrains_with_one_activation():
    block = ShuffleBlock(8, norm_cfg=dict(type='BN'))
    stock = InvertedResidual(8, 8)
    stock.load_state_dict(block.state_dict())
    for module in block.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False
    recorded = []
    block.preact.register_forward_hook(lambda _, __, x: recorded.append(x))
    # What enters has passed an activation.
    x = torch.randn(2, 8, 5, 5).relu().requires_grad_()
    out, expected = block(x), stock(x)
    assert torch.equal(out, expected)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (out, expected)]
    torch.testing.assert_close(*gradients)
    assert torch.equal(recorded[0][:, :4], x[:, :4])
    assert recorded[0][:, 4:].min() < 0


@pytest.mark.parametrize('widen_factor', [0.5, 1.5, 2.0])
def test_widths(widen_factor):
    model = CIFARShuffleNetV2(widen_factor, out_indices=(0, 3))
    model.eval()
    with torch.no_grad():
        first, last = model(torch.rand(1, 3, 32, 32))
    assert first.shape[1] == {0.5: 48, 1.5: 176, 2.0: 244}[widen_factor]
    assert last.shape[1] == (2048 if widen_factor == 2 else 1024)


def test_unknown_width():
    message = r'got widen_factor=0\.3, expected one of \[0\.5, 1\.0, 1\.5, 2\.0\]'
    with pytest.raises(ValueError, match=message):
        CIFARShuffleNetV2(0.3)
