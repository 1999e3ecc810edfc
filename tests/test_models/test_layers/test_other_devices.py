# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Layers, connectors and losses on `meta`, without data, and as on `mps`."""

import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmfakd.models.connectors import (
    FrequencyAttentionConnector,
    LayerwiseConnector,
    ReviewConnector,
)
from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from mmfakd.models.losses import FFTFeatureLoss, HierarchicalContextLoss
from mmfakd.ops import compiling
from mmfakd.ops.no_autocast import no_autocast
from mmfakd.version import parse_version

FORMS = [
    (dict(size=8), (8, 8)),
    (dict(size=(7, 9)), (7, 9)),
    (dict(size=1), (1, 1)),
    (dict(size=28, groups=2), (28, 28)),
    (dict(size=14, high_pass=0.5, with_local=False), (14, 14)),
    (dict(size=8, with_global=False), (8, 8)),
    (dict(modes=4), (9, 13)),
    (dict(modes=16, high_pass=0), (20, 25)),
    (dict(modes=16), (5, 7)),
    (dict(modes=(5, 6), high_pass=0.9), (60, 70)),
]
WINDOWS = [(8, 3, (9, 7), (4, 3)), (64, 5, (8, 8), (16, 16)), (64, 3, (1, 1), (1, 1))]


def backward(out):
    outs = [out] if isinstance(out, torch.Tensor) else out
    sum(o.float().sum() for o in outs).backward()
    return [tuple(o.shape) for o in outs]


def on_meta(*shape, dtype=None):
    return torch.empty(shape, device='meta', dtype=dtype, requires_grad=True)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize(('form', 'size'), FORMS)
def test_filters_on_meta(form, size, dtype):
    with torch.device('meta'):
        layer = FrequencyAttention(8, 16, **form)
    x = on_meta(2, 8, *size, dtype=dtype)
    out = layer(x)
    assert out.is_meta and out.dtype == dtype
    assert backward(out) == [(2, 16, *size)] and x.grad.shape == x.shape
    assert all(p.grad.is_meta for p in layer.parameters())
    assert FrequencyAttention(8, 16, **form).to('meta')(x).shape == out.shape
    if layer.with_global:
        rows, columns = layer.grid
        expected = (16, 8 // layer.groups, rows, columns // 2 + 1)
        assert layer.spectrum().shape == expected


@pytest.mark.parametrize(('channels', 'kernel', 'size', 'other'), WINDOWS)
def test_windows_on_meta(channels, kernel, size, other):
    with torch.device('meta'):
        layer = LocalCrossAttention(channels, kernel)
    x, y = on_meta(2, channels, *size), on_meta(2, channels, *other)
    assert backward(layer(x, y)) == [x.shape]
    assert x.grad.shape == x.shape and y.grad.shape == y.shape
    assert all(p.grad.is_meta for p in layer.parameters())


# Its checkpoints ask for torch.meta, and its exporter lacks many things.
OLD = parse_version(torch.__version__) < (2, 2)


@pytest.mark.parametrize(
    'with_cp',
    [False, pytest.param(True, marks=pytest.mark.skipif(OLD, reason='torch 2.1'))],
)
def test_connectors_on_meta(with_cp):
    with torch.device('meta'):
        review = ReviewConnector(
            [8, 16, 16], [8, 16, 32], sizes=[9, 5, 1], with_cp=with_cp
        )
        layerwise = LayerwiseConnector([8, 16], [16, 32], sizes=[8, 4])
        single = FrequencyAttentionConnector(16, 64, modes=4, scale=2)
    features = [on_meta(2, 8, 8, 8), on_meta(2, 16, 4, 4), on_meta(2, 16)]
    shapes = [(2, 8, 9, 9), (2, 16, 5, 5), (2, 32, 1, 1)]
    assert backward(review(features)) == shapes
    shapes = [(2, 16, 8, 8), (2, 32, 4, 4)]
    assert backward(layerwise(features[:2])) == shapes
    assert backward(single(features[1])) == [(2, 64, 8, 8)]
    parts = (review, layerwise, single)
    assert all(p.grad.is_meta for part in parts for p in part.parameters())


@pytest.mark.parametrize(
    'loss',
    [
        HierarchicalContextLoss(),
        FFTFeatureLoss(),
        FFTFeatureLoss(domain='phase', band=(0.1, 0.3), focal_alpha=1.0),
        FFTFeatureLoss(domain='log_amplitude'),
    ],
)
def test_losses_on_meta(loss):
    x = on_meta(2, 8, 9, 7)
    assert backward(loss(x, on_meta(2, 8, 9, 7))) == [()]
    assert x.grad.is_meta


def test_without_data_and_with_again():
    """Tables that are kept between calls are never those of fake tensors."""
    forms = [(dict(size=8), 8), (dict(modes=4), 40)]
    real = [FrequencyAttention(8, 4, **form) for form, _ in forms]
    inputs = [torch.randn(2, 8, n, n) for _, n in forms]
    expected = [layer(x) for layer, x in zip(real, inputs)]
    for _ in range(2):
        with FakeTensorMode():
            for form, n in forms:
                x = torch.empty(2, 8, n, n, requires_grad=True)
                assert backward(FrequencyAttention(8, 4, **form)(x)) == [(2, 4, n, n)]
        for layer, x, out in zip(real, inputs, expected):
            torch.testing.assert_close(layer(x), out)


@pytest.mark.skipif(OLD, reason='torch 2.1')
def test_export():
    layer = FrequencyAttention(8, 4, modes=4).eval()
    x = torch.randn(2, 8, 12, 9)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), layer(x), rtol=1e-5, atol=1e-5)


class AsOnMps(TorchDispatchMode):
    """Refuses what mps has not: float64, products of complex matrices, strides."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        wide = (torch.float64, torch.complex128)
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                assert tensor.dtype not in wide, name
                complex_ = tensor.is_complex() and name in ('mm', 'bmm', 'addmm')
                assert not complex_ and name != 'as_strided', name
        return out


def compute(module, *shapes):
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    module.zero_grad()
    out = module(*inputs)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    grads = [p.grad.clone() for p in module.parameters()]
    return [out.detach(), *(x.grad for x in inputs), *grads]


@pytest.mark.parametrize('case', [*FORMS, *WINDOWS])
def test_as_on_mps(case, monkeypatch):
    """The plain operations of other devices: the same numbers."""
    torch.manual_seed(0)
    if isinstance(case[0], dict):
        module, shapes = FrequencyAttention(8, 16, **case[0]), [(2, 8, *case[1])]
    else:
        channels, kernel, size, other = case
        module = LocalCrossAttention(channels, kernel)
        shapes = [(2, channels, *size), (2, channels, *other)]
    expected = compute(module, *shapes)
    monkeypatch.setattr(compiling, '_DEVICES', ())
    with AsOnMps():
        found = compute(module, *shapes)
    for a, b in zip(found, expected):
        assert (a - b).abs().max() <= 2e-5 * max(1, b.abs().max())


def test_autocast_is_switched_off_where_there_is_one():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        with no_autocast(torch.ones(1)):
            assert torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float32
        with no_autocast(torch.ones(1, device='meta')):
            pass
