# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The layers on a GPU against the same layers on the CPU."""

import copy

import pytest
import torch

from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
]
DEVICE = 'cuda'


@pytest.fixture(autouse=True)
def exact():
    """TensorFloat-32, cuDNN's default, would round to three digits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def outputs_and_gradients(layer, device, inputs):
    layer = copy.deepcopy(layer).to(device)
    inputs = [x.to(device).requires_grad_() for x in inputs]
    output = layer(*inputs)
    output.square().sum().backward()
    tensors = [output, *(x.grad for x in inputs), *(p.grad for p in layer.parameters())]
    return [tensor.detach().cpu() for tensor in tensors]


def assert_same(layer, inputs):
    for gpu, cpu in zip(
        outputs_and_gradients(layer, DEVICE, inputs),
        outputs_and_gradients(layer, 'cpu', inputs),
    ):
        assert (gpu - cpu).abs().max() <= 1e-4 * cpu.abs().max()


@pytest.mark.parametrize('size', [(1, 1), (7, 7), (8, 8), (9, 13), (32, 32), (56, 56)])
def test_frequency_attention(size):
    """cuFFT's complex-to-real transform is undefined on non-Hermitian input."""
    assert_same(FrequencyAttention(6, 4, size=size), [torch.randn(3, 6, *size)])


@pytest.mark.parametrize('size', [(8, 8), (15, 20), (25, 42)])
def test_frequency_attention_of_modes(size):
    assert_same(FrequencyAttention(6, 4, modes=12), [torch.randn(3, 6, *size)])


@pytest.mark.parametrize('size', [(1, 1), (5, 9), (32, 32)])
def test_local_cross_attention(size):
    inputs = [torch.randn(3, 8, *size) for _ in range(2)]
    assert_same(LocalCrossAttention(8), inputs)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('size', [(7, 7), (15, 20)])
def test_half_precision_off_powers_of_two(dtype, size):
    """cuFFT has no half precision there; the layers compute in float32."""
    x = torch.randn(2, 8, *size)
    for layer, inputs in (
        (FrequencyAttention(8, 4, size=size), [x]),
        (LocalCrossAttention(8), [x, x.flip(0)]),
    ):
        expected = layer(*(z.to(dtype).float() for z in inputs)).detach()
        with torch.autocast(DEVICE, dtype=dtype):
            output = layer.to(DEVICE)(*(z.to(DEVICE, dtype) for z in inputs))
        assert output.dtype == dtype
        error = (output.float().cpu() - expected).abs().max()
        assert error <= 2e-2 * expected.abs().max()
