# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The layers on a GPU against the same layers on the CPU."""

import copy
import warnings

import pytest
import torch

from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from mmfakd.ops import triton_window_attention
from mmfakd.ops.blockwise_window_attention import BlockwiseWindowAttention
from mmfakd.ops.triton_window_attention import TritonWindowAttention
from tests.helpers.window_attentions import (
    CASES,
    assert_equals_naive,
    make_inputs,
    results,
)

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


ATTENTIONS = [BlockwiseWindowAttention, TritonWindowAttention]


@pytest.fixture
def needs_triton(monkeypatch):
    """Skip where Triton is missing; where it is present, falling back is an error."""
    pytest.importorskip('triton')
    monkeypatch.setattr(triton_window_attention, '_failed', False)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='LocalCrossAttention computes')
        yield


@pytest.mark.parametrize('attention', ATTENTIONS)
@pytest.mark.parametrize(('shape', 'size', 'last'), CASES)
def test_window_attention_equals_naive(needs_triton, shape, size, last, attention):
    inputs = make_inputs(shape, size, last, DEVICE)
    assert_equals_naive(attention.apply, inputs, size)


@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize(
    ('shape', 'size'),
    [
        ((64, 16, 32, 32), 3),
        ((16, 64, 56, 56), 3),
        ((64, 256, 14, 14), 3),
        ((64, 512, 7, 7), 3),
        ((256, 64, 1, 1), 3),
        ((2, 256, 100, 167), 3),
        ((2, 6, 50, 84), 5),
        ((2, 6, 50, 84), 11),
    ],
)
def test_triton_equals_fallback(needs_triton, shape, size, last):
    inputs = make_inputs(shape, size, last, DEVICE)
    grad = torch.randn(shape, device=DEVICE)
    expected, actual, again = (
        results(attention.apply, inputs, size, grad)
        for attention in (*ATTENTIONS, TritonWindowAttention)
    )
    for a, b, c in zip(actual, expected, again):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
        assert torch.equal(a, c)


def test_large_scores_with_triton(needs_triton):
    """They are as exact as float32 is at 300; where one wins, nothing moves it."""
    query, key_value, offset = make_inputs((2, 4, 6, 6), 3, device=DEVICE)
    inputs = query.sign() * 300, key_value.clamp(-1, 1), offset.clamp(-1, 1)
    attend = TritonWindowAttention.apply
    assert_equals_naive(attend, inputs, 3, tolerance=1e-4, least=1)


def test_triton_on_more_than_2_to_the_31_numbers(needs_triton):
    if torch.cuda.mem_get_info()[0] < 48 * 2**30:
        pytest.skip('needs 48 GiB of GPU memory')
    n, c, size = 66, 256, 256
    query, key_value = (
        torch.randn(n, k, size, size, device=DEVICE, requires_grad=True)
        for k in (c, 2 * c)
    )
    assert key_value.numel() > 2**31
    offset = torch.randn(c, 3, device=DEVICE)
    parts = []
    for samples in (slice(None), slice(n - 1, n)):
        inputs = [z[samples] for z in (query, key_value)]
        out = TritonWindowAttention.apply(*inputs, offset, 3)
        grads = torch.autograd.grad(out, inputs, inputs[0].detach())
        parts.append([z[-1:].clone() for z in (out, *grads)])
        del out, grads
    for all_samples, alone in zip(*parts):
        assert torch.equal(all_samples, alone)


@pytest.mark.parametrize('wanted', ['1', '0'])
def test_local_cross_attention_takes_triton(needs_triton, monkeypatch, wanted):
    monkeypatch.setenv('MMFAKD_TRITON', wanted)
    layer = LocalCrossAttention(8).to(DEVICE)
    x = torch.randn(2, 8, 5, 9, device=DEVICE)
    attention = TritonWindowAttention if wanted == '1' else BlockwiseWindowAttention
    assert layer(x, x).grad_fn.name() == f'{attention.__name__}Backward'
    # Float64 is left to torch.
    assert layer.double()(x.double(), x.double()).grad_fn.name().startswith('Block')
    assert_same(layer.float().cpu(), [x.cpu(), x.flip(0).cpu()])
