# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.utils import digit_version
from torch.autograd import gradcheck
from torch.func import functional_call

from mmfakd.analysis.benchmark.naive_layers import NaiveLocalCrossAttention
from mmfakd.models.layers import LocalCrossAttention, local_cross_attention
from mmfakd.ops import blockwise_window_attention
from mmfakd.utils import convert_famkd_state_dict
from tests.helpers.golden import distance, load_golden, strip_prefix

MAPS = {
    'row_offset': 'rel_h',
    'column_offset': 'rel_w',
    'query.weight': 'query_conv.weight',
    'key.weight': 'key_conv.weight',
    'value.weight': 'value_conv.weight',
}


@pytest.mark.parametrize('size', ['6x6', '5x9'])
def test_golden(size):
    golden = load_golden(f'cross_attention_c8_{size}')
    layer = LocalCrossAttention(8)
    layer.load_state_dict(convert_famkd_state_dict(strip_prefix(golden, 'param.')))
    x, y = golden['x'].requires_grad_(), golden['y'].requires_grad_()
    out = layer(x, y)
    out.backward(golden['grad_out'])
    assert distance(out, golden['out']) < 1e-5
    assert distance(x.grad, golden['grad_x']) < 1e-4
    assert distance(y.grad, golden['grad_y']) < 1e-4
    for name, parameter in layer.named_parameters():
        assert distance(parameter.grad, golden[f'grad.{MAPS[name]}']) < 1e-4


# One block for all, and blocks of one or a few maps.
@pytest.mark.parametrize('block', [2**16, 50, 1])
@pytest.mark.parametrize('size', [(1, 1), (1, 4), (5, 2), (8, 7), (3, 17), (16, 16)])
def test_equals_naive(monkeypatch, size, block):
    monkeypatch.setattr(blockwise_window_attention, '_CPU_BLOCK', block)
    naive = NaiveLocalCrossAttention(4).double()
    ours = LocalCrossAttention(4).double()
    ours.load_state_dict(naive.state_dict())
    x, y = (
        torch.randn(3, 4, *size, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    expected, actual = naive(x, y), ours(x, y)
    assert distance(actual, expected) < 1e-12
    grad = torch.randn_like(expected)
    expected = torch.autograd.grad(expected, (x, y, *naive.parameters()), grad)
    parameters = dict(ours.named_parameters())
    ordered = [parameters[name] for name, _ in naive.named_parameters()]
    for a, b in zip(torch.autograd.grad(actual, (x, y, *ordered), grad), expected):
        assert distance(a, b) < 1e-12


@pytest.mark.parametrize('block', [2**16, 50, 1])
@pytest.mark.parametrize('size', [(1, 1), (3, 4), (5, 7), (4, 9), (9, 8)])
def test_other_sizes_are_resized_to_nearest_neighbours(monkeypatch, size, block):
    monkeypatch.setattr(blockwise_window_attention, '_CPU_BLOCK', block)
    layer = LocalCrossAttention(4).double()
    x = torch.randn(3, 4, 6, 7, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 4, *size, dtype=torch.float64, requires_grad=True)
    inputs = (x, y, *layer.parameters())
    enlarged = torch.nn.functional.interpolate(y, size=(6, 7), mode='nearest')
    results = []
    for out in (layer(x, y), layer(x, enlarged)):
        grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        results.append([out, *torch.autograd.grad(out, inputs, grad)])
    for actual, expected in zip(*results):
        assert distance(actual, expected) < 1e-12


def test_keeps_small_queries_small():
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    x, y = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        LocalCrossAttention(4)(x, y)
    # Keys and values, the output and the input; the other input and queries.
    large = sum(n for n in kept.values() if n >= x.numel())
    small = sum(n for n in kept.values() if y.numel() <= n < x.numel())
    assert (large, small) == (4 * x.numel(), 2 * y.numel())


def test_projections_are_convolutions(monkeypatch):
    layer = LocalCrossAttention(4).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for few in (0, 5):
        monkeypatch.setattr(local_cross_attention, '_FEW', few)
        out = layer(x, x.flip(0))
        inputs = (x, *layer.parameters())
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for a, b in zip(*results):
        assert distance(a, b) < 1e-12


@pytest.mark.parametrize('kernel_size', [1, 5])
def test_other_windows(kernel_size):
    layer = LocalCrossAttention(2, kernel_size=kernel_size).double()
    names = [name for name, _ in layer.named_parameters()]

    def call(x, y, *parameters):
        return functional_call(layer, dict(zip(names, parameters)), (x, y))

    x, y = (
        torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    assert gradcheck(call, (x, y, *layer.parameters()))
    if kernel_size == 1:  # one position: the attention is its value
        assert torch.allclose(layer(x, y), layer.value(x))


@pytest.mark.parametrize('block', [2**16, 12])
def test_gradcheck(monkeypatch, block):
    monkeypatch.setattr(blockwise_window_attention, '_CPU_BLOCK', block)
    layer = LocalCrossAttention(2).double()
    names = [name for name, _ in layer.named_parameters()]

    def call(x, y, *parameters):
        return functional_call(layer, dict(zip(names, parameters)), (x, y))

    x, y = (
        torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    assert gradcheck(call, (x, y, *layer.parameters()))


def test_keeps_its_inputs_projections_and_output():
    layer = LocalCrossAttention(4)
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    x, y = torch.randn(2, 2, 4, 16, 16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x, y)
    # Two inputs, query, key and value, and the output.
    assert sum(n for n in kept.values() if n >= x.numel()) == 6 * x.numel()


def test_second_derivatives_are_refused():
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    out = LocalCrossAttention(4)(x, x)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiate twice'):
        grad.sum().backward()


def test_gradients_accumulate_over_two_backwards():
    layer = LocalCrossAttention(4)
    x, y = torch.randn(2, 2, 4, 5, 5)
    out = layer(x, y).sum()
    out.backward(retain_graph=True)
    once = layer.key.weight.grad.clone()
    out.backward()
    assert torch.allclose(layer.key.weight.grad, 2 * once)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_callers_get_their_dtype_back(dtype):
    layer = LocalCrossAttention(4)
    x, y = torch.randn(2, 2, 4, 6, 6)
    expected = layer(x, y)
    tolerance = 16 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-5
    for module in (layer, copy.deepcopy(layer).to(dtype)):
        out = module(x.to(dtype), y.to(dtype))
        assert out.dtype == dtype
        assert distance(out.to(expected.dtype), expected) < tolerance
        out.sum().backward()
        assert all(p.grad.dtype == p.dtype for p in module.parameters())


def test_autocast_changes_nothing():
    layer = LocalCrossAttention(4)
    x, y = torch.randn(2, 2, 4, 6, 6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(layer(x, y), layer(x.float(), y.float()))
        assert layer(x.bfloat16(), y).dtype == torch.bfloat16
        out = layer(x, y)
        out.sum().backward()
    assert layer.row_offset.grad is not None


def test_large_scores_do_not_overflow():
    layer = LocalCrossAttention(2)
    out = layer(torch.full((1, 2, 4, 4), 1e4), torch.full((1, 2, 4, 4), 1e4))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_init_is_the_published_one():
    layer = LocalCrossAttention(200)
    for conv in (layer.query, layer.key, layer.value):
        assert conv.bias is None
        assert conv.weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.05)
    for offset in (layer.row_offset, layer.column_offset):
        assert offset.shape == (100, 3)
        assert offset.std().item() == pytest.approx(1, abs=0.15)


def test_state_round_trips():
    layer, other = LocalCrossAttention(4), LocalCrossAttention(4)
    x, y = torch.randn(2, 2, 4, 6, 6)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x, y), layer(x, y))
    assert torch.equal(copy.deepcopy(layer)(x, y), layer(x, y))


@pytest.mark.parametrize('size', [6, 16])
def test_channels_last_inputs(size):
    layer = LocalCrossAttention(4)
    x, y = torch.randn(2, 2, 4, size, size)
    last = [z.contiguous(memory_format=torch.channels_last) for z in (x, y)]
    assert torch.allclose(layer(*last), layer(x, y), atol=1e-6)


@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6'),
    reason='the compiler of older torch does not trace autograd functions whole',
)
@pytest.mark.parametrize('size', [6, 16])
@pytest.mark.parametrize('deeper', [1, 2])
def test_compiles_to_one_graph(size, deeper):
    layer = LocalCrossAttention(4)
    x, y = (
        torch.randn(2, 4, side, side, requires_grad=True)
        for side in (size, size // deeper)
    )
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    inputs = (x, y, *layer.parameters())
    results = []
    for module in (layer, compiled):
        out = module(x, y)
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for a, b in zip(*results):
        assert distance(b, a) < 1e-5


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'channels': 5}, 'channels=5, expected an even number'),
        ({'channels': 0}, 'channels=0'),
        ({'channels': 4.0}, 'channels=4.0, expected an even number'),
        ({'channels': 4, 'kernel_size': 2}, 'kernel_size=2, expected an odd number'),
        ({'channels': 4, 'kernel_size': (3, 3)}, r'kernel_size=\(3, 3\), expected an'),
        ({'channels': 4, 'kernel_size': 3.0}, 'kernel_size=3.0, expected an odd'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalCrossAttention(**arguments)


@pytest.mark.parametrize(
    'shapes',
    [
        ((1, 4, 6, 6), (1, 2, 6, 6)),
        ((1, 4, 6, 6), (2, 4, 6, 6)),
        ((1, 2, 6, 6), (1, 2, 6, 6)),
        ((4, 6, 6), (4, 6, 6)),
    ],
)
def test_bad_inputs(shapes):
    with pytest.raises(
        ValueError, match=r'two of shape \(N, 4, H, W\).*match channels'
    ):
        LocalCrossAttention(4)(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize('dtype', [torch.complex64, torch.long])
def test_bad_dtypes(dtype):
    x = torch.ones(1, 4, 6, 6)
    for inputs in ((x, x.to(dtype)), (x.to(dtype), x)):
        with pytest.raises(TypeError, match=f'Local.* got .*{dtype}.*real'):
            LocalCrossAttention(4)(*inputs)


def test_builds_from_the_root_registry():
    layer = MODELS.build(dict(type='mmfakd.LocalCrossAttention', channels=4))
    assert isinstance(layer, LocalCrossAttention)
