# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.models.layers import AttentionBasedFusion


def test_weighs_both_features():
    layer = AttentionBasedFusion(3)
    x, y = torch.randn(2, 2, 3, 4, 5)
    torch.nn.init.zeros_(layer.attention.weight)
    layer.attention.bias.data = torch.tensor([0.0, 100.0])
    assert torch.allclose(layer(x, y), x / 2 + y)


def test_maps_see_both_features():
    layer = AttentionBasedFusion(1)
    torch.nn.init.zeros_(layer.attention.bias)
    layer.attention.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[
        ..., None, None
    ]
    x, y = torch.randn(2, 2, 1, 4, 5)
    assert torch.allclose(layer(x, y), x * x.sigmoid() + y * y.sigmoid())


def test_every_parameter_gets_a_gradient():
    layer = AttentionBasedFusion(4)
    layer(*torch.randn(2, 2, 4, 5, 5)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize('shape', [(1, 4, 3, 3), (1, 2, 6, 6)])
def test_bad_inputs(shape):
    with pytest.raises(ValueError, match=r'one shape \(N, 4, H, W\): match channels'):
        AttentionBasedFusion(4)(torch.ones(1, 4, 6, 6), torch.ones(shape))


@pytest.mark.parametrize('channels', [8.0, None, 0])
def test_bad_channels(channels):
    with pytest.raises(ValueError, match=f'channels={channels}, expected a number of'):
        AttentionBasedFusion(channels)


@pytest.mark.parametrize('dtype', [torch.complex64, torch.long])
def test_bad_dtypes(dtype):
    x = torch.ones(1, 4, 6, 6)
    for inputs in ((x, x.to(dtype)), (x.to(dtype), x)):
        with pytest.raises(TypeError, match=f'Atten.* got .*{dtype}.*real'):
            AttentionBasedFusion(4)(*inputs)


def test_builds_from_the_root_registry():
    layer = MODELS.build(dict(type='mmfakd.AttentionBasedFusion', channels=4))
    assert isinstance(layer, AttentionBasedFusion)
