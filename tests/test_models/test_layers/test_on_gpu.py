# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The layers on a GPU against the same layers on the CPU."""

import copy

import pytest
import torch

from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from mmfakd.ops.blockwise_window_attention import BlockwiseWindowAttention
from mmfakd.ops.chooser import CHOOSER
from mmfakd.ops.frequency_filter import FREQUENCY_FILTER
from mmfakd.ops.triton_window_attention import TritonWindowAttention
from mmfakd.ops.window_attention import WINDOW_ATTENTION
from mmfakd.ops.window_attention_at_once import WindowAttentionAtOnce
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
def exact(monkeypatch, tmp_path):
    """TensorFloat-32, cuDNN's default, would round to three digits.

    What a test does not say it computes in the reference way.
    """
    monkeypatch.setenv('MMFAKD_WAYS', 'reference')
    monkeypatch.setenv('MMFAKD_CACHE_DIR', str(tmp_path))
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


ATTENTIONS = [BlockwiseWindowAttention, WindowAttentionAtOnce, TritonWindowAttention]


@pytest.mark.parametrize('attention', ATTENTIONS)
@pytest.mark.parametrize(('shape', 'size', 'last'), CASES)
def test_window_attention_equals_naive(shape, size, last, attention):
    pytest.importorskip('triton')
    inputs = make_inputs(shape, size, last, DEVICE)
    assert_equals_naive(attention.apply, inputs)


@pytest.mark.parametrize('small', [(1, 1), (5, 7), (10, 14), (4, 3), (20, 28)])
@pytest.mark.parametrize('attention', ATTENTIONS[1:])
def test_enlarges_queries(small, attention):
    pytest.importorskip('triton')
    _, *others = make_inputs((3, 8, 20, 28), 3, device=DEVICE)
    query = torch.randn(3, 8, *small, device=DEVICE)
    grad = torch.randn(3, 8, 20, 28, device=DEVICE)
    actual = results(attention.apply, [query, *others], grad)
    expected = results(BlockwiseWindowAttention.apply, [query, *others], grad)
    for a, b in zip(actual, expected):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


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
def test_triton_equals_blocks(shape, size, last):
    pytest.importorskip('triton')
    inputs = make_inputs(shape, size, last, DEVICE)
    grad = torch.randn(shape, device=DEVICE)
    expected, actual, again = (
        results(attention.apply, inputs, grad)
        for attention in (ATTENTIONS[0], ATTENTIONS[-1], ATTENTIONS[-1])
    )
    for a, b, c in zip(actual, expected, again):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
        assert torch.equal(a, c)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_triton_in_half_precision(dtype):
    pytest.importorskip('triton')
    query, key_value, *offsets = make_inputs((8, 16, 20, 28), 3, device=DEVICE)
    inputs = [query.to(dtype), key_value.to(dtype), *offsets]
    wide = [z.float() for z in inputs]
    actual = results(TritonWindowAttention.apply, inputs, query)
    expected = results(BlockwiseWindowAttention.apply, wide, query.to(dtype).float())
    for a, b in zip(actual, expected):
        assert (a - b).abs().max() <= 2 * torch.finfo(dtype).eps * b.abs().max()


def test_large_scores_with_triton():
    """They are as exact as float32 is at 300; where one wins, nothing moves it."""
    pytest.importorskip('triton')
    query, *others = make_inputs((2, 4, 6, 6), 3, device=DEVICE)
    inputs = query.sign() * 300, *(z.clamp(-1, 1) for z in others)
    attend = TritonWindowAttention.apply
    assert_equals_naive(attend, inputs, tolerance=1e-4, least=1)


def test_triton_on_more_than_2_to_the_31_numbers():
    pytest.importorskip('triton')
    if torch.cuda.mem_get_info()[0] < 48 * 2**30:
        pytest.skip('needs 48 GiB of GPU memory')
    n, c, size = 66, 256, 256
    query, key_value = (
        torch.randn(n, k, size, size, device=DEVICE, requires_grad=True)
        for k in (c, 2 * c)
    )
    assert key_value.numel() > 2**31
    offsets = torch.randn(2, c // 2, 3, device=DEVICE)
    parts = []
    for samples in (slice(None), slice(n - 1, n)):
        inputs = [z[samples] for z in (query, key_value)]
        out = TritonWindowAttention.apply(*inputs, *offsets)
        grads = torch.autograd.grad(out, inputs, inputs[0].detach())
        parts.append([z[-1:].clone() for z in (out, *grads)])
        del out, grads
    for all_samples, alone in zip(*parts):
        assert torch.equal(all_samples, alone)


FILTERS = [
    (dict(size=(8, 8)), (8, 8)),
    (dict(size=(9, 13)), (9, 13)),
    (dict(size=(32, 32)), (32, 32)),
    (dict(size=1), (1, 1)),
    (dict(modes=12), (25, 42)),
    (dict(modes=12), (5, 6)),
    (dict(modes=8, groups=2), (64, 64)),
]


@pytest.mark.parametrize(('kwargs', 'size'), FILTERS)
def test_all_ways_of_a_filter(kwargs, size, monkeypatch):
    """Each against the reference on the CPU; those with kernels among them."""
    layer, x = FrequencyAttention(6, 4, **kwargs), torch.randn(3, 6, *size)
    expected, tried = outputs_and_gradients(layer, 'cpu', [x]), []
    usable = {}
    run = CHOOSER.run

    def note(operation, *inputs):
        usable.update({k: w.usable(*inputs) for k, w in operation.ways.items()})
        return run(operation, *inputs)

    monkeypatch.setattr(CHOOSER, 'run', note)
    outputs_and_gradients(layer, DEVICE, [x])
    for name in [name for name, use in usable.items() if use]:
        with CHOOSER.forcing({FREQUENCY_FILTER.name: name}):
            actual = outputs_and_gradients(layer, DEVICE, [x])
        tried.append(name)
        for gpu, cpu in zip(actual, expected):
            scale = max(cpu.abs().max(), 1e-2)
            assert (gpu - cpu).abs().max() <= 1e-4 * scale, name
    assert len(tried) >= 4
    assert any('triton' in name for name in tried)


@pytest.mark.parametrize('layer', ['filter', 'attention'])
def test_chooses_by_measurement(layer, monkeypatch):
    """Once; then nothing waits for the device any more."""
    monkeypatch.setenv('MMFAKD_WAYS', 'auto')
    monkeypatch.setattr(CHOOSER, '_known', {})
    x = torch.randn(8, 16, 16, 16)
    made, inputs = FrequencyAttention(16, 16, size=16), [x]
    if layer == 'attention':
        made, inputs = LocalCrossAttention(16), [x, x.flip(0)]
    assert_same(made, inputs)
    assert len(CHOOSER._known) == 1
    made = made.to(DEVICE)
    inputs = [z.to(DEVICE).requires_grad_() for z in inputs]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        made(*inputs).square().mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('size', [7, 16])
def test_rounded_convolutions_drop_no_way(size, monkeypatch):
    """By PyTorch's default convolutions are rounded to TensorFloat-32."""
    monkeypatch.setenv('MMFAKD_WAYS', 'auto')
    monkeypatch.setattr(CHOOSER, '_known', {})
    monkeypatch.setattr(CHOOSER, '_dropped', set())
    layer = FrequencyAttention(16, 64, size=size).to(DEVICE)
    x = torch.randn(64, 16, size, size, device=DEVICE, requires_grad=True)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        layer(x).square().mean().backward()
    assert len(CHOOSER._known) == 1
    assert not CHOOSER._dropped


@pytest.mark.parametrize('layer', ['filter', 'attention'])
def test_can_be_captured_in_a_graph(layer):
    made = FrequencyAttention(8, 8, size=16) if layer == 'filter' else None
    made = (made or LocalCrossAttention(8)).to(DEVICE)
    count = 1 if layer == 'filter' else 2
    inputs = [torch.randn(4, 8, 16, 16, device=DEVICE) for _ in range(count)]
    inputs = [z.requires_grad_() for z in inputs]
    captured = torch.cuda.make_graphed_callables(copy.deepcopy(made), tuple(inputs))
    assert torch.allclose(captured(*inputs), made(*inputs), atol=1e-5)


@pytest.mark.parametrize('wanted', ['1', '0'])
def test_triton_can_be_ruled_out(monkeypatch, wanted):
    pytest.importorskip('triton')
    monkeypatch.setenv('MMFAKD_TRITON', wanted)
    inputs = make_inputs((2, 8, 5, 9), 3, device=DEVICE)
    assert WINDOW_ATTENTION.ways['triton'].usable(*inputs) == (wanted == '1')
    # Float64 is left to torch.
    doubles = [z.double() for z in inputs]
    assert not WINDOW_ATTENTION.ways['triton'].usable(*doubles)
