# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.utils import digit_version
from torch.autograd import gradcheck
from torch.func import functional_call

from mmfakd.analysis.benchmark.naive_layers import (
    NaiveFrequencyAttention,
    high_pass_mask,
    naive_filter,
)
from mmfakd.models.layers import FrequencyAttention, pack_filter
from mmfakd.ops import spectral_filter, spectral_transform
from mmfakd.ops.half_spectrum import HalfSpectrum
from mmfakd.utils import convert_famkd_state_dict
from tests.helpers.golden import distance, load_golden


def pair(channels=(3, 4), size=(8, 8), high_pass=0.1, groups=1):
    """A naive module and ours with the same weights, in float64."""
    naive = NaiveFrequencyAttention(*channels, size, high_pass, groups).double()
    naive.weight.data = torch.randn(naive.weight.shape, dtype=torch.complex128)
    ours = FrequencyAttention(
        *channels, size=size, high_pass=high_pass, groups=groups
    ).double()
    with torch.no_grad():
        ours.filter.copy_(pack_filter(naive.weight, high_pass, groups))
        ours.local.load_state_dict(naive.local.state_dict())
    return naive, ours


@pytest.mark.parametrize('size', [1, 7, 8, 16, 32, 56])
def test_golden(size):
    golden = load_golden(f'fam_{size:02d}')
    weights = golden['weights1'].requires_grad_()
    layer = FrequencyAttention(3, 5, size=size)
    packed = pack_filter(weights)
    layer.load_state_dict(
        {
            'filter': packed.detach(),
            'local.weight': golden['w0_weight'],
            'local.bias': golden['w0_bias'],
            'gate_global': golden['rate1'].reshape(1),
            'gate_local': golden['rate2'].reshape(1),
        }
    )
    x = golden['x'].requires_grad_()
    y = layer(x)
    y.backward(golden['grad_y'])
    assert distance(y, golden['y']) < 1e-5
    assert distance(x.grad, golden['grad_x']) < 1e-4
    assert distance(layer.gate_global.grad, golden['grad_rate1']) < 1e-4
    assert distance(layer.gate_local.grad, golden['grad_rate2']) < 1e-4
    assert distance(layer.local.weight.grad, golden['grad_w0_weight']) < 1e-4
    # The full filter's gradient is the adjoint of the conversion, applied to ours.
    (grad,) = torch.autograd.grad(packed, weights, layer.filter.grad)
    assert distance(grad, golden['grad_weights1']) < 1e-4


@pytest.mark.parametrize('high_pass', [0, 0.1, 0.35])
@pytest.mark.parametrize(
    'size',
    [(1, 1), (2, 2), (1, 5), (6, 1), (7, 7), (8, 8), (9, 13), (28, 20), (33, 42)],
)
def test_equals_naive(size, high_pass):
    naive, ours = pair(size=size, high_pass=high_pass)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected, actual = naive(x), ours(x)
    assert distance(actual, expected) < 1e-12
    grad = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, x, grad, retain_graph=True)
    (actual_grad,) = torch.autograd.grad(actual, x, grad)
    assert distance(actual_grad, expected_grad) < 1e-12


@pytest.mark.parametrize('size', [(7, 7), (8, 8), (28, 28)])
def test_trains_like_naive(size):
    naive, ours = pair(size=size)
    x = torch.randn(4, 3, *size, dtype=torch.float64)
    target = torch.randn(4, 4, *size, dtype=torch.float64)
    for layer in (naive, ours):
        optimizer = torch.optim.SGD(
            layer.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
        )
        for _ in range(20):
            optimizer.zero_grad()
            (layer(x) - target).square().sum(1).mean().backward()
            optimizer.step()
    assert distance(ours(x), naive(x)) < 1e-10
    # Weight decay moves the parts that do not act as well.
    expected = pack_filter(naive.weight.detach())
    assert distance(ours.filter, expected) < 1e-10
    assert distance(ours.gate_global, naive.rate1) < 1e-10


@pytest.mark.parametrize('size', [7, 8, 28])
def test_trains_like_naive_in_single_precision(size):
    naive, ours = (layer.float() for layer in pair(size=(size, size)))
    naive.weight.data = naive.weight.data.to(torch.complex64) / 12
    ours.filter.data /= 12
    x, target = torch.randn(4, 3, size, size), torch.randn(4, 4, size, size)
    for layer in (naive, ours):
        optimizer = torch.optim.SGD(
            layer.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
        )
        for _ in range(20):
            optimizer.zero_grad()
            (layer(x) - target).square().mean().backward()
            optimizer.step()
    assert distance(ours(x), naive(x)) < 2e-6


@pytest.mark.parametrize('groups', [2, 4])
def test_groups_equal_naive(groups):
    naive, ours = pair((4, 8), (6, 7), groups=groups)
    assert ours.filter.numel() * groups == pair((4, 8), (6, 7))[1].filter.numel()
    assert ours.local.weight.shape == (8, 4, 1, 1)  # dense
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    assert distance(ours(x), naive(x)) < 1e-12


def test_init_has_the_published_distribution():
    layer = FrequencyAttention(40, 50, size=28)
    with torch.no_grad():
        filter_ = layer.filter * 40 * 50
    own_mirror = HalfSpectrum(28, 15, 28).own_mirror_images
    assert len(own_mirror) == 4
    # As drawn, U[0, 1).
    assert filter_[own_mirror].min() >= 0 and filter_[own_mirror].max() < 1
    assert filter_[own_mirror].mean() == pytest.approx(0.5, abs=0.01)
    # Elsewhere c = 1 / sqrt(2), and (W(k) + conj W(-k)) / 2 has mean (1/2, 0).
    filter_ = filter_[60:80]
    assert filter_[..., 0].mean() == pytest.approx(0.5 * 2**0.5, abs=0.01)
    assert filter_[..., 1].mean() == pytest.approx(0, abs=0.01)
    assert filter_[..., 0].var() == pytest.approx(1 / 12, rel=0.05)
    assert filter_[..., 1].var() == pytest.approx(1 / 12, rel=0.05)
    assert layer.gate_global.item() == layer.gate_local.item() == 0.5


@pytest.mark.parametrize('size', [(7, 7), (8, 8), (9, 13), (28, 32)])
def test_spectrum_is_what_acts(size):
    naive, ours = pair(size=size)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    spectrum = ours.spectrum()
    assert spectrum.shape == (4, 3, size[0], size[1] // 2 + 1)
    assert spectrum.dtype == torch.complex128
    product = torch.einsum('bixy,oixy->boxy', torch.fft.rfft2(x), spectrum)
    actual = torch.fft.irfft2(product, s=size)
    assert distance(actual, naive_filter(x, naive.weight, 0.1)) < 1e-12


def test_high_pass_is_the_published_one():
    # At 28 and 32 pixels only the mean vanishes, and three neighbours are halved;
    # below 20 pixels nothing is cut.
    for size, cut, halved in [(19, 0, 0), (20, 1, 3), (28, 1, 3), (32, 1, 3)]:
        weight = torch.ones(1, 1, size, size, dtype=torch.complex64)
        layer = FrequencyAttention(1, 1, size=size)
        layer.filter.data = pack_filter(weight)
        full = torch.fft.fft2(torch.fft.irfft2(layer.spectrum(), s=(size, size)))
        full = full[0, 0].real.round(decimals=4)
        assert (full == 0).sum() == cut
        assert (full == 0.5).sum() == 2 * halved
        assert (full == 1).sum() == size**2 - cut - 2 * halved
        if cut:
            assert full[0, 0] == 0
            assert full[0, 1] == full[1, 0] == full[1, 1] == 0.5
            assert full[1, -1] == 1


@pytest.mark.parametrize('size', [(7, 7), (8, 8), (9, 13), (32, 32)])
def test_all_modes_are_the_size_form(size):
    dense = FrequencyAttention(3, 4, size=size)
    free = FrequencyAttention(3, 4, modes=size)
    free.load_state_dict(dense.state_dict())
    x = torch.randn(2, 3, *size)
    assert distance(free(x), dense(x)) < 1e-5


def periodic_filter(weight, size, high_pass=0.1):
    """A full filter of the modes' grid on a grid that is at least as large."""
    rows, columns = weight.shape[-2:]
    weight = weight * high_pass_mask(rows, columns, high_pass)
    row = torch.fft.fftfreq(size[0], 1 / size[0]).round().long()
    column = torch.fft.fftfreq(size[1], 1 / size[1]).round().long()
    inside = (row.abs() <= rows // 2)[:, None] & (column.abs() <= columns // 2)
    return weight[:, :, row % rows][..., column % columns] * inside


@pytest.mark.parametrize('modes', [(5, 7), (6, 6), (24, 22)])
@pytest.mark.parametrize('extra', [(0, 0), (1, 2), (2, 0), (0, 5), (17, 30)])
def test_modes_on_larger_inputs(modes, extra):
    size = modes[0] + extra[0], modes[1] + extra[1]
    naive, dense = pair(size=modes)
    layer = FrequencyAttention(3, 4, modes=modes, with_local=False).double()
    layer.filter.data = dense.filter.data
    layer.gate_global.data.fill_(1)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = naive_filter(x, periodic_filter(naive.weight, size), 0)
    assert distance(layer(x), expected) < 1e-12


@pytest.mark.parametrize('size', [(5, 3), (7, 9), (1, 1), (11, 5)])
def test_modes_beyond_the_input_are_unused(size):
    # Odd inputs: every frequency of theirs is one of the filter's.
    modes = 12, 13
    naive, dense = pair(size=modes)
    layer = FrequencyAttention(3, 4, modes=modes, with_local=False).double()
    layer.filter.data = dense.filter.data
    layer.gate_global.data.fill_(1)
    row = torch.fft.fftfreq(size[0], 1 / size[0]).round().long() % modes[0]
    column = torch.fft.fftfreq(size[1], 1 / size[1]).round().long() % modes[1]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = naive_filter(x, naive.weight[:, :, row][..., column], 0)
    assert distance(layer(x), expected) < 1e-12


def test_one_module_takes_any_size():
    layer = FrequencyAttention(3, 4, modes=12)
    for size in [(8, 8), (15, 20), (25, 42), (1, 1), (12, 3), (4, 30)]:
        x = torch.randn(2, 3, *size)
        y = layer(x)
        assert y.shape == (2, 4, *size)
        layer.zero_grad()
        y.square().mean().backward()
        assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize('modes', [4, 5, (6, 1), (2, 7)])
@pytest.mark.parametrize(
    'size', [(1, 1), (2, 2), (3, 4), (4, 3), (4, 4), (6, 6), (8, 9), (9, 8), (2, 9)]
)
def test_inverse_transform_gets_hermitian_columns(monkeypatch, modes, size):
    # Backends disagree about anything else.
    seen = []
    irfft2 = torch.fft.irfft2

    def spy(spectrum, s, norm):
        assert s == size
        seen.append(spectrum)
        return irfft2(spectrum, s=s, norm=norm)

    monkeypatch.setattr(torch.fft, 'irfft2', spy)
    monkeypatch.setattr(spectral_transform, '_SMALL', 0)
    monkeypatch.setattr(spectral_transform, '_FEW', 0)
    layer = FrequencyAttention(2, 2, modes=modes).double()
    layer.filter.data = torch.randn_like(layer.filter)
    layer(torch.randn(1, 2, *size, dtype=torch.float64))
    (spectrum,) = seen
    own_mirror = [0]
    if size[1] % 2 == 0 and spectrum.shape[-1] == size[1] // 2 + 1:
        own_mirror.append(-1)
    for column in own_mirror:
        column = spectrum[..., column]
        mirror = column.flip(-1).roll(1, -1).conj()
        assert torch.allclose(column, mirror, atol=1e-12)


@pytest.mark.parametrize(('small', 'few'), [(0, 0), (64, 0), (0, 1)])
@pytest.mark.parametrize('merge', [False, True])
@pytest.mark.parametrize('grid', [{'size': (4, 5)}, {'modes': (3, 4), 'groups': 2}])
def test_gradcheck(monkeypatch, grid, merge, small, few):
    monkeypatch.setattr(spectral_filter, 'merge_pays', lambda *_: merge)
    monkeypatch.setattr(spectral_transform, '_SMALL', small)
    monkeypatch.setattr(spectral_transform, '_FEW', few)
    layer = FrequencyAttention(2, 4, **grid).double()
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *parameters):
        return functional_call(layer, dict(zip(names, parameters)), x)

    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(call, (x, *layer.parameters()))


@pytest.mark.parametrize(
    ('grid', 'size'),
    [
        ({'size': 1}, (1, 1)),
        ({'size': (6, 7)}, (6, 7)),
        # More and fewer frequencies than the input's: only the former can merge.
        ({'modes': 5}, (4, 3)),
        ({'modes': 5}, (1, 1)),
        ({'modes': 5}, (9, 8)),
        ({'modes': 5}, (5, 6)),
        ({'size': 4, 'groups': 2}, (4, 4)),
    ],
)
@pytest.mark.parametrize('samples', [1, 200])
def test_merged_branches_equal_separate_ones(monkeypatch, grid, size, samples):
    layer = FrequencyAttention(2, 4, **grid).double()
    x = torch.randn(samples, 2, *size, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(samples, 4, *size, dtype=torch.float64)
    results = []
    for merge in (lambda *_: False, lambda *_: True):
        monkeypatch.setattr(spectral_filter, 'merge_pays', merge)
        y = layer(x)
        results.append([y, *torch.autograd.grad(y, [x, *layer.parameters()], grad)])
    for a, b in zip(*results):
        assert distance(a, b) < 1e-12


def test_merging_pays_where_features_are_larger_than_filters():
    filter_ = FrequencyAttention(4, 4, size=8).filter
    assert filter_.numel() == 34 * 4 * 4 * 2  # 1088
    assert spectral_filter.merge_pays(filter_, torch.empty(3, 4, 8, 8))
    assert not spectral_filter.merge_pays(filter_, torch.empty(2, 4, 8, 8))


# Other numbers of channels out than in, and as many: the latter share memory.
@pytest.mark.parametrize('channels', [(4, 4), (4, 2)])
@pytest.mark.parametrize('arguments', [{}, {'groups': 2}, {'with_local': False}])
def test_size_of_blocks_does_not_matter(monkeypatch, channels, arguments):
    layer = FrequencyAttention(*channels, size=(9, 8), **arguments).double()
    x = torch.randn(5, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    results = []
    for block in (10**6, 800, 1):
        monkeypatch.setattr(spectral_filter, '_CPU_BLOCK', block)
        monkeypatch.setattr(spectral_filter, '_PIXELS', block // 4)
        y = layer(x)
        inputs = (x, *layer.parameters())
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for other in results[1:]:
        for a, b in zip(other, results[0]):
            assert distance(a, b) < 1e-12


@pytest.mark.parametrize('merge', [False, True])
def test_second_derivatives_are_refused(monkeypatch, merge):
    monkeypatch.setattr(spectral_filter, 'merge_pays', lambda *_: merge)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    y = FrequencyAttention(3, 4, size=8)(x)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiate twice'):
        grad.sum().backward()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('grid', [{'size': (7, 12)}, {'modes': 5}])
def test_callers_get_their_dtype_back(dtype, grid):
    layer = FrequencyAttention(3, 4, **grid)
    x = torch.randn(2, 3, 7, 12)
    expected = layer(x)
    tolerance = 4 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-5
    for module in (layer, copy.deepcopy(layer).to(dtype)):
        y = module(x.to(dtype).requires_grad_())
        assert y.dtype == dtype
        assert distance(y.to(expected.dtype), expected) < tolerance
        y.sum().backward()
        assert all(p.grad.dtype == p.dtype for p in module.parameters())


def test_autocast_changes_nothing():
    layer = FrequencyAttention(3, 4, size=7)
    x = torch.randn(2, 3, 7, 7)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y, half = layer(x), layer(x.bfloat16())
    assert y.dtype == torch.float32 and half.dtype == torch.bfloat16
    assert torch.equal(y, layer(x))


def test_double_module_computes_in_double():
    naive, ours = pair(size=(28, 28))
    x = torch.randn(1, 3, 28, 28, dtype=torch.float64)
    assert distance(ours.half().double()(x), naive(x)) < 1e-2
    assert ours(x).dtype == torch.float64


def test_branches_can_be_switched_off():
    x = torch.randn(2, 3, 8, 8)
    only_global = FrequencyAttention(3, 4, size=8, with_local=False)
    only_local = FrequencyAttention(3, 4, size=8, with_global=False)
    assert set(dict(only_global.named_parameters())) == {'filter', 'gate_global'}
    assert set(dict(only_local.named_parameters())) == {
        'local.weight',
        'local.bias',
        'gate_local',
    }
    both = FrequencyAttention(3, 4, size=8)
    both.load_state_dict({**only_global.state_dict(), **only_local.state_dict()})
    assert torch.allclose(both(x), only_global(x) + only_local(x), atol=1e-6)
    for layer in (only_global, only_local):
        layer(x).sum().backward()
        assert all(p.grad is not None for p in layer.parameters())
    with pytest.raises(RuntimeError, match='with_global=False'):
        only_local.spectrum()


def test_state_is_real_and_round_trips():
    layer = FrequencyAttention(3, 4, size=8)
    state = layer.state_dict()
    assert sorted(state) == [
        'filter',
        'gate_global',
        'gate_local',
        'local.bias',
        'local.weight',
    ]
    assert not any(value.is_complex() for value in state.values())
    # Columns 1 to 3 whole, 0 and 4 in half.
    assert state['filter'].shape == (8 * 3 + 2 * 5, 1, 3, 4, 2)
    x = torch.randn(2, 3, 8, 8)
    other = FrequencyAttention(3, 4, size=8)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(state)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))


def test_every_parameter_gets_a_gradient():
    layer = FrequencyAttention(3, 4, size=32)
    layer(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    # Only what the mask cuts stays untouched, the mean: first after the bulk.
    untouched = (layer.filter.grad == 0).flatten(1).all(-1)
    assert untouched.nonzero().tolist() == [[32 * 15]]


@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6'),
    reason='the compiler of older torch breaks the graph at FFTs or Python 3.12',
)
@pytest.mark.parametrize('samples', [1, 30])
def test_compiles_to_one_graph(samples):
    layer = FrequencyAttention(3, 4, size=8)
    x = torch.randn(samples, 3, 8, 8, requires_grad=True)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    results = []
    for module in (layer, compiled):
        y = module(x)
        inputs = (x, *layer.parameters())
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for a, b in zip(*results):
        assert distance(b, a) < 1e-5


@pytest.mark.parametrize('grid', [{}, {'size': 8, 'modes': 8}])
def test_exactly_one_of_size_and_modes(grid):
    with pytest.raises(ValueError, match='exactly one of them: give `size`'):
        FrequencyAttention(3, 4, **grid)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'with_global': False, 'with_local': False}, 'leaves nothing to compute'),
        ({'groups': 2}, 'in_channels=3, out_channels=4 and groups=2'),
        ({'high_pass': 1.0}, r'high_pass=1.0, expected a fraction .* \[0, 1\)'),
        ({'high_pass': -0.1}, 'high_pass=-0.1'),
        ({'size': (8, 0)}, r'size=\(8, 0\), expected a positive integer'),
        ({'size': (8, 8, 8)}, r'size=\(8, 8, 8\)'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FrequencyAttention(3, 4, **{'size': 8, **arguments})


@pytest.mark.parametrize(
    ('x', 'error', 'message'),
    [
        (torch.ones(1, 3, 8, 8, dtype=torch.complex64), TypeError, 'complex64'),
        (torch.ones(1, 3, 8, 8, dtype=torch.long), TypeError, 'int64, expected real'),
        (torch.ones(3, 8, 8), ValueError, r'\(3, 8, 8\), expected \(N, 3, H, W\)'),
        (torch.ones(1, 4, 8, 8), ValueError, r'\(1, 4, 8, 8\), expected \(N, 3'),
        (torch.ones(1, 3, 8, 9), ValueError, '8x9 pixels, expected 8x8: resize'),
    ],
)
def test_bad_inputs(x, error, message):
    with pytest.raises(error, match=message):
        FrequencyAttention(3, 4, size=8)(x)


def test_pack_filter_checks():
    with pytest.raises(TypeError, match='expected a complex one: view a real one'):
        pack_filter(torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r'\(1, 4, 4\)'):
        pack_filter(torch.ones(1, 4, 4, dtype=torch.complex64))


def test_builds_from_the_root_registry():
    layer = MODELS.build(
        dict(type='mmfakd.FrequencyAttention', in_channels=3, out_channels=4, modes=8)
    )
    assert isinstance(layer, FrequencyAttention)
    assert 'modes=(8, 8)' in repr(layer)


def test_naive_weights_convert():
    naive = NaiveFrequencyAttention(3, 4, (9, 8))
    ours = FrequencyAttention(3, 4, size=(9, 8))
    ours.load_state_dict(convert_famkd_state_dict(naive.famkd_state_dict()))
    x = torch.randn(2, 3, 9, 8)
    assert distance(ours(x), naive(x)) < 1e-5
