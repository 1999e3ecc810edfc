# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.models.layers import ConvTransform


def test_convolves_at_any_size():
    layer = ConvTransform(2, 3)
    assert [name for name, _ in layer.named_parameters()] == ['conv.weight']
    torch.nn.init.ones_(layer.conv.weight)
    for size in [(1, 1), (4, 5)]:
        assert layer(torch.ones(1, 2, *size)).shape == (1, 3, *size)
    assert layer(torch.ones(1, 2, 3, 3))[0, 0].tolist() == [
        [8, 12, 8],
        [12, 18, 12],
        [8, 12, 8],
    ]


@pytest.mark.parametrize('kernel_size', [1, 5])
def test_other_kernels(kernel_size):
    layer = ConvTransform(2, 3, kernel_size)
    torch.nn.init.ones_(layer.conv.weight)
    out = layer(torch.ones(1, 2, 7, 8))
    assert out.shape == (1, 3, 7, 8) and out.max() == 2 * kernel_size**2


@pytest.mark.parametrize('kernel_size', [0, 2, -1, 3.0, (3, 3)])
def test_kernels_without_a_middle(kernel_size):
    with pytest.raises(ValueError, match=r'kernel_size=.*, expected an odd number'):
        ConvTransform(2, 3, kernel_size)


@pytest.mark.parametrize('channels', [(2.0, 3), (2, None), (0, 3)])
def test_bad_channels(channels):
    with pytest.raises(ValueError, match='ConvTransform got .*_channels=.*positive'):
        ConvTransform(*channels)


def test_init_is_the_published_one():
    weight = ConvTransform(16, 32).conv.weight
    bound = (3 / (16 * 9)) ** 0.5  # kaiming_uniform with a = 1
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize('shape', [(1, 3, 4, 4), (2, 4, 4)])
def test_bad_inputs(shape):
    with pytest.raises(ValueError, match=r'expected \(N, 2, H, W\): adapt'):
        ConvTransform(2, 3)(torch.ones(shape))


@pytest.mark.parametrize('dtype', [torch.complex64, torch.long])
def test_bad_dtypes(dtype):
    with pytest.raises(TypeError, match=f'ConvTransform got .*{dtype}, expected real'):
        ConvTransform(2, 3)(torch.ones(1, 2, 4, 4, dtype=dtype))


def test_builds_from_the_root_registry():
    cfg = dict(type='mmfakd.ConvTransform', in_channels=2, out_channels=3)
    assert isinstance(MODELS.build(cfg), ConvTransform)


def test_channels_of_numpy():
    layer = ConvTransform(*np.array([2, 3]))
    assert layer(torch.ones(1, 2, 4, 4)).shape == (1, 3, 4, 4)
