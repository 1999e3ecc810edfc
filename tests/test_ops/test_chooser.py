# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The choice among ways by measurement, with timers that say what they are told."""

import json
import math
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from mmfakd.ops import chooser as choosing
from mmfakd.ops import frequency_filter, window_attention
from mmfakd.ops.choice_file import ChoiceFile
from mmfakd.ops.chooser import Chooser
from mmfakd.ops.compare_ways import WrongResult, compare, seconds_of
from mmfakd.ops.operation import Operation
from mmfakd.ops.way import Way
from tests.helpers.two_processes import run_twice

X = torch.linspace(1, 2, 12).view(3, 4)


@pytest.fixture(autouse=True)
def measuring(monkeypatch, tmp_path):
    """CPUs measure, too; nothing is kept outside of the test."""
    monkeypatch.setenv('MMFAKD_WAYS', 'measure')
    monkeypatch.setenv('MMFAKD_CACHE_DIR', str(tmp_path / 'cache'))


def operation(name='square', **ways):
    """A square, as `x * x` and in other ways."""
    return Operation(
        name,
        {'product': Way(lambda x: x * x), **{k: Way(way) for k, way in ways.items()}},
        lambda x: 'product',
    )


def power(x):
    return x**2


class Seconds:
    """A timer that gives each way the seconds that it is told; keeps what it timed."""

    def __init__(self, monkeypatch, **seconds):
        self.seconds, self.timed = seconds, []
        self.results_of = choosing.results_of
        monkeypatch.setattr(choosing, 'results_of', self.compute)
        self.last = None

    def compute(self, run, inputs):
        self.last = run
        return self.results_of(run, inputs)

    def __call__(self, run, device):
        run()
        [name] = [k for k, way in self.operation.ways.items() if way.run is self.last]
        self.timed.append(name)
        return self.seconds[name]

    def chooser(self, operation, **kwargs):
        self.operation = operation
        return Chooser(timer=self, **kwargs)


def leaf(x=X):
    return x.clone().requires_grad_()


def run(chooser, square, x=X):
    """Output and gradient of an operation."""
    x = leaf(x)
    y = chooser.run(square, x)
    return y.detach(), *torch.autograd.grad(y.sum(), x)


def assert_right(results, x=X):
    y, grad = results
    assert torch.allclose(y, x * x) and torch.allclose(grad, 2 * x)


def test_the_fastest_is_kept(monkeypatch):
    square = operation(power=power, slow=lambda x: x * x.clone())
    seconds = Seconds(monkeypatch, product=2.0, power=1.0, slow=3.0)
    chooser = seconds.chooser(square)
    assert_right(run(chooser, square))
    assert set(seconds.timed) == {'product', 'power', 'slow'}
    count = len(seconds.timed)
    assert chooser.choose(square, (leaf(),)) == 'power'
    assert len(seconds.timed) == count, 'measured once'
    y = chooser.run(square, leaf())
    assert y.grad_fn.name() == 'PowBackward0'


def test_not_for_a_trifle(monkeypatch):
    """Noise is no reason to leave the reference."""
    square = operation(power=power)
    chooser = Seconds(monkeypatch, product=1.0, power=0.97).chooser(square)
    assert chooser.choose(square, (leaf(),)) == 'product'


def test_each_size_dtype_and_layout_by_itself(monkeypatch):
    square = operation(power=power)
    seconds = Seconds(monkeypatch, product=2.0, power=1.0)
    chooser = seconds.chooser(square)
    image = torch.ones(2, 3, 4, 4)
    counts = []
    for x in (
        X,
        X,
        X[:2],
        X.double(),
        image,
        image.to(memory_format=torch.channels_last),
    ):
        chooser.choose(square, (leaf(x) if x.dim() == 2 else x.requires_grad_(),))
        counts.append(len(seconds.timed))
    first = counts[0]
    assert counts == [first, first, 2 * first, 3 * first, 4 * first, 5 * first]


@pytest.mark.parametrize(
    'wrong',
    [
        lambda x: x * x * 1.01,
        lambda x: x * x.detach(),
        lambda x: x * x + math.nan,
        lambda x: (x * x).double(),
        lambda x: (x * x)[:2],
        lambda x: x @ x,
    ],
    ids=['output', 'gradient', 'nan', 'dtype', 'shape', 'raises'],
)
def test_a_wrong_way_is_dropped(monkeypatch, wrong):
    """However fast; told once, and what is computed is right all the time."""
    square = operation(wrong=wrong, power=power)
    seconds = Seconds(monkeypatch, product=2.0, power=1.0, wrong=0.1)
    chooser = seconds.chooser(square)
    with pytest.warns(UserWarning, match="The way 'wrong' to compute 'square' is drop"):
        assert_right(run(chooser, square))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert_right(run(chooser, square))
        # At another size it is not tried again.
        assert_right(run(chooser, square, X[:1]), X[:1])
    assert 'wrong' not in seconds.timed
    assert chooser.choose(square, (leaf(),)) == 'power'


def test_a_way_that_fails_later_is_dropped(monkeypatch):
    broken = []

    def fragile(x):
        if broken:
            raise RuntimeError('lost')
        return x**2

    square = operation(fragile=fragile)
    chooser = Seconds(monkeypatch, product=2.0, fragile=1.0).chooser(square)
    assert_right(run(chooser, square))
    broken.append(True)
    with pytest.warns(UserWarning, match='RuntimeError: lost\nWith MMFAKD_WAYS=ref'):
        assert_right(run(chooser, square))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert_right(run(chooser, square))


def test_short_memory_drops_nothing(monkeypatch):
    def large(x):
        raise torch.cuda.OutOfMemoryError('too little')

    square = operation(large=large)
    chooser = Seconds(monkeypatch, product=1.0).chooser(square)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert_right(run(chooser, square))
    assert not chooser._dropped


def test_only_what_is_usable_is_tried(monkeypatch):
    square = Operation(
        'square',
        {
            'product': Way(lambda x: x * x),
            'small': Way(lambda x: x**2, lambda x: len(x) < 3),
        },
        lambda x: 'product',
    )
    seconds = Seconds(monkeypatch, product=2.0, small=1.0)
    chooser = seconds.chooser(square)
    assert chooser.choose(square, (leaf(),)) == 'product' and not seconds.timed
    assert chooser.choose(square, (leaf(X[:2]),)) == 'small'


def test_choices_survive_a_restart(monkeypatch):
    square = operation(power=power)
    run(Seconds(monkeypatch, product=2.0, power=1.0).chooser(square), square)
    again = Seconds(monkeypatch, product=1.0, power=2.0)
    chooser = again.chooser(square)
    assert chooser.choose(square, (leaf(),)) == 'power' and not again.timed
    content = json.loads(ChoiceFile().path.read_text())
    assert content['versions']['torch'] == torch.__version__
    [(label, way)] = content['choices'].items()
    assert way == 'power' and label.startswith('square | CPU, 1 threads | 3x4 float32')
    # Of another version they count as none.
    content['versions']['torch'] = '1.0'
    ChoiceFile().path.write_text(json.dumps(content))
    chooser = again.chooser(square)
    assert chooser.choose(square, (leaf(),)) == 'product' and again.timed


def test_a_kept_choice_is_tried_before_it_is_relied_on(monkeypatch):
    square = operation(power=power)
    run(Seconds(monkeypatch, product=2.0, power=1.0).chooser(square), square)
    changed = operation(power=lambda x: x**3)
    chooser = Seconds(monkeypatch).chooser(changed)
    with pytest.warns(UserWarning, match='is dropped here'):
        assert_right(run(chooser, changed))


@pytest.mark.parametrize('content', ['', '[]', '{"versions": 3}', '{"choices": 1}'])
def test_a_damaged_file_counts_as_empty(monkeypatch, content):
    path = ChoiceFile().path
    path.parent.mkdir()
    path.write_text(content)
    square = operation(power=power)
    chooser = Seconds(monkeypatch, product=2.0, power=1.0).chooser(square)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert chooser.choose(square, (leaf(),)) == 'power'
    assert list(json.loads(path.read_text())['choices'].values()) == ['power']


def test_a_file_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    (tmp_path / 'cache').write_text('in the way')
    square = operation(power=power)
    chooser = Seconds(monkeypatch, product=2.0, power=1.0).chooser(square)
    with pytest.warns(UserWarning, match='cannot be kept .*MMFAKD_CACHE_DIR'):
        assert chooser.choose(square, (leaf(),)) == 'power'
    assert ', not kept): ' in chooser.tell()


def test_many_sizes_are_not_all_measured(monkeypatch):
    monkeypatch.setattr(choosing, '_MOST', 2)
    square = operation(power=power)
    seconds = Seconds(monkeypatch, product=2.0, power=1.0)
    chooser = seconds.chooser(square)
    chooser.choose(square, (leaf(torch.ones(2)),))
    seconds.seconds.update(product=1.0, power=2.0)
    chooser.choose(square, (leaf(torch.ones(100)),))
    count = len(seconds.timed)
    assert chooser.choose(square, (leaf(torch.ones(5)),)) == 'power'
    assert chooser.choose(square, (leaf(torch.ones(90)),)) == 'product'
    assert len(seconds.timed) == count


def untouched(monkeypatch):
    """A chooser that must not measure."""
    square = operation(power=power)
    return square, Seconds(monkeypatch).chooser(square)


@pytest.mark.parametrize('mode', ['reference', 'auto'])
def test_off(monkeypatch, mode):
    """By a setting; and on CPUs unless one says so."""
    monkeypatch.setenv('MMFAKD_WAYS', mode)
    square, chooser = untouched(monkeypatch)
    assert chooser.choose(square, (leaf(),)) == 'product'
    assert not ChoiceFile().path.exists()


def test_unknown_modes_are_refused(monkeypatch):
    monkeypatch.setenv('MMFAKD_WAYS', 'fastest')
    square, chooser = untouched(monkeypatch)
    with pytest.raises(ValueError, match=r"MMFAKD_WAYS='fastest'.*'auto', .*`unset MM"):
        chooser.run(square, leaf())
    with pytest.raises(ValueError, match=r"^mode='fastest'; expected one of .'auto',"):
        Chooser(mode='fastest')


def test_off_where_determinism_is_asked_for(monkeypatch):
    square, chooser = untouched(monkeypatch)
    torch.use_deterministic_algorithms(True)
    try:
        assert chooser.choose(square, (leaf(),)) == 'product'
    finally:
        torch.use_deterministic_algorithms(False)


def test_measures_in_training_only(monkeypatch):
    square, chooser = untouched(monkeypatch)
    with torch.no_grad():
        assert chooser.choose(square, (leaf(),)) == 'product'
    with torch.inference_mode():
        assert chooser.choose(square, (X,)) == 'product'
    assert chooser.choose(square, (X,)) == 'product'
    assert chooser.choose(square, (leaf(X[:0]),)) == 'product'
    # What overflows cannot be compared: later.
    assert chooser.choose(square, (leaf(X / 0),)) == 'product'
    assert not chooser._known


def test_what_is_measured_leaves_no_trace(monkeypatch):
    """In the graph, in what hooks keep, and in random numbers."""
    square = operation(power=power)
    chooser = Seconds(monkeypatch, product=2.0, power=1.0).chooser(square)
    state, packed = torch.get_rng_state(), []

    def pack(z):
        packed.append(z)
        return z

    x = leaf()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda z: z):
        y = chooser.run(square, x)
    assert len(packed) == 1 and y.grad_fn.name() == 'PowBackward0'
    assert torch.equal(torch.get_rng_state(), state) and x.grad is None


def test_forced_for_tests_and_measurements(monkeypatch):
    square, chooser = untouched(monkeypatch)
    with chooser.forcing({'square': 'power'}):
        assert chooser.run(square, leaf()).grad_fn.name() == 'PowBackward0'
    assert chooser.choose(square, (leaf(X / 0),)) == 'product'


def test_tells_once_what_was_chosen(monkeypatch):
    square = operation(power=power)
    chooser = Seconds(monkeypatch, product=2.0, power=1.0).chooser(square)
    assert chooser.tell() == ''
    run(chooser, square)
    told = chooser.tell()
    assert told.startswith('Chosen by measurement (')
    assert '3x4 float32: power' in told and str(ChoiceFile().path) in told
    assert chooser.tell() == ''


def test_compares_as_exactly_as_dtypes_are():
    ones = torch.ones(3, dtype=torch.float64)
    compare([ones + 1e-10], [ones])
    with pytest.raises(WrongResult, match='the output differs by 1e-08'):
        compare([ones + 1e-8], [ones])
    half = ones.half()
    compare([half, half * 1.005], [half, half])
    with pytest.raises(WrongResult, match='gradient 1 differs'):
        compare([half, half * 1.05], [half, half])
    # A single number that many that are not small cancel out to.
    many, one = torch.full((10**4,), 3.0), torch.tensor([1e-3])
    compare([many, one + 1e-5], [many, one])


def test_times_calls():
    seconds = seconds_of(lambda: torch.ones(1000).sum(), torch.device('cpu'))
    assert 0 < seconds < 10


def two_ranks(rank, folder):
    """Each finds another way faster; they agree on what the first one has found."""
    square = operation(power=power, other=lambda x: x * x.clone())
    rank = int(rank)
    mine = ('power', 'other')[rank]
    patch = pytest.MonkeyPatch()
    patch.setenv('MMFAKD_WAYS', 'measure')
    patch.setenv('MMFAKD_CACHE_DIR', f'{folder}/rank{rank}')
    seconds = Seconds(patch, **{'product': 3.0, 'power': 2.0, 'other': 2.0, mine: 1.0})
    chooser = seconds.chooser(square)
    if rank == 1:
        # Also a size that the other one never sees: nobody waits for it.
        chooser.choose(square, (leaf(X[:1]),))
    sizes = (X, X[:2]) if rank == 0 else (X[:2], X)
    for x in sizes:
        assert_right(run(chooser, square, x), x)
        dist.barrier()
    names = [chooser.choose(square, (leaf(x),)) for x in (X, X[:2])]
    found = [None, None]
    dist.all_gather_object(found, names)
    assert found[0] == found[1]
    assert set(names) <= {'power', 'other'}


def test_two_ranks_agree(tmp_path):
    run_twice(two_ranks, str(tmp_path))


# The operations of the layers.


def layer_runs(layer, *inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = layer(*inputs)
    grads = torch.autograd.grad(y.square().sum(), [*inputs, *layer.parameters()])
    return [y.detach(), *grads]


@pytest.mark.parametrize(
    ('layer', 'shapes', 'operation'),
    [
        (FrequencyAttention(4, 4, size=8), [(3, 4, 8, 8)], 'frequency filter'),
        (FrequencyAttention(4, 4, modes=6), [(3, 4, 9, 12)], 'frequency filter'),
        (FrequencyAttention(4, 4, size=1), [(3, 4, 1, 1)], 'frequency filter'),
        (LocalCrossAttention(4), [(3, 4, 6, 6), (3, 4, 3, 3)], 'window attention'),
    ],
)
def test_ways_of_layers_compute_the_same(layer, shapes, operation, monkeypatch):
    """All that are usable on a CPU; none of them is dropped."""
    inputs = [torch.randn(shape) for shape in shapes]
    monkeypatch.setenv('MMFAKD_WAYS', 'reference')
    expected = layer_runs(layer, *inputs)
    monkeypatch.setenv('MMFAKD_WAYS', 'measure')
    seconds = {}

    def timer(run, device):
        run()
        return seconds.setdefault(run.args[0], 1.0)

    chooser = Chooser(timer=timer)
    monkeypatch.setattr(frequency_filter, 'CHOOSER', chooser)
    monkeypatch.setattr(window_attention, 'CHOOSER', chooser)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for actual in (layer_runs(layer, *inputs) for _ in range(2)):
            assert all(torch.equal(a, b) for a, b in zip(actual, expected))
    assert len(seconds) > 3
    ways = {
        'frequency filter': frequency_filter.FREQUENCY_FILTER,
        'window attention': window_attention.WINDOW_ATTENTION,
    }[operation].ways
    timed = [name for name, way in ways.items() if way.run in seconds]
    most = max(b.abs().max() for b in expected)
    for name in timed:
        with chooser.forcing({operation: name}):
            actual = layer_runs(layer, *inputs)
        for a, b in zip(actual, expected):
            # A single number may be a small sum of many that are not.
            scale = b.abs().max() if b.numel() > 1 else most
            assert (a - b).abs().max() <= 2e-5 * scale, name


@pytest.fixture
def faster_and_faster(monkeypatch):
    """A chooser to which whatever it times last is the fastest, as on a GPU."""
    seconds = [1.0]

    def timer(run, device):
        run()
        seconds[0] *= 0.8
        return seconds[0]

    chooser = Chooser(timer=timer)
    monkeypatch.setattr(frequency_filter, 'CHOOSER', chooser)
    monkeypatch.setattr(window_attention, 'CHOOSER', chooser)
    return chooser


CHECKPOINTED = [
    (FrequencyAttention(4, 6, size=8), [(2, 4, 8, 8)]),
    (FrequencyAttention(4, 6, modes=5), [(2, 4, 9, 8)]),
    (LocalCrossAttention(4), [(2, 4, 8, 8), (2, 4, 8, 8)]),
]


@pytest.mark.parametrize('early', [True, False])
@pytest.mark.parametrize(('layer', 'shapes'), CHECKPOINTED)
def test_a_recomputation_may_end_within_a_way(layer, shapes, early, faster_and_faster):
    """Checkpointing ends it by raising, which is no fault of the way."""
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    expected = layer_runs(layer, *inputs)
    with warnings.catch_warnings(), set_checkpoint_early_stop(early):
        warnings.simplefilter('error')
        for _ in range(2):
            y = checkpoint(layer, *inputs, use_reentrant=False)
            given = [*inputs, *layer.parameters()]
            actual = [y.detach(), *torch.autograd.grad(y.square().sum(), given)]
            assert all(torch.equal(a, b) for a, b in zip(actual, expected))
    assert list(faster_and_faster._known.values()) != [None]
    assert not faster_and_faster._dropped


def test_a_way_dropped_elsewhere_is_kept_where_it_was_right(faster_and_faster):
    """Or a recomputation would differ from what was computed before."""
    layer = FrequencyAttention(4, 6, size=8)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    y = checkpoint(layer, x, use_reentrant=False)
    [way] = faster_and_faster._known.values()
    assert way != frequency_filter.FREQUENCY_FILTER.reference(x, layer.filter)
    with pytest.warns(UserWarning, match='is dropped here'):
        faster_and_faster.drop('frequency filter', way, ValueError('at another size'))
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    # A new size does without it.
    layer(torch.randn(3, 4, 8, 8, requires_grad=True))
    assert list(faster_and_faster._known.values())[1] != way


@pytest.mark.parametrize('at', ['reference', 'timing'])
def test_short_memory_while_measuring_is_no_end(monkeypatch, at):
    square = operation(power=power)

    def timer(run, device):
        raise torch.cuda.OutOfMemoryError('too little')

    def results_of(run, inputs):
        raise torch.cuda.OutOfMemoryError('too little')

    if at == 'reference':
        monkeypatch.setattr(choosing, 'results_of', results_of)
    chooser = Chooser(timer=timer)
    for _ in range(2):
        assert_right(run(chooser, square))
    assert list(chooser._known.values()) == ['product']


def test_short_memory_of_the_step_is_told(monkeypatch):
    """It is the step's own: another way may take as much."""
    short = []

    def large(x):
        if short:
            raise torch.cuda.OutOfMemoryError('too little')
        return x**2

    square = operation(large=large)
    chooser = Seconds(monkeypatch, product=2.0, large=1.0).chooser(square)
    assert_right(run(chooser, square))
    short.append(True)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(chooser, square)


def test_a_user_without_a_home(monkeypatch):
    def nobody():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', nobody)
    assert ChoiceFile().path.name == 'ways.json'
    monkeypatch.delenv('MMFAKD_CACHE_DIR')
    monkeypatch.setenv('XDG_CACHE_HOME', '/cache')
    assert ChoiceFile().path == Path('/cache/mmfakd/ways.json')
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert ChoiceFile().path == Path(tempfile.gettempdir(), 'mmfakd', 'ways.json')
