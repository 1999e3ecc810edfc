# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The suite launches: what it counts, and what the steps of R56-R20 hand to a GPU."""

import json

import pytest
import torch

from mmfakd import cli
from mmfakd.analysis.benchmark import launches
from mmfakd.analysis.benchmark.launch_tables import format_launches
from mmfakd.analysis.benchmark.measure import Case, Options, Side
from mmfakd.analysis.benchmark.operation_counter import OperationCounter, count_bytes
from mmfakd.analysis.benchmark.step_parts import NETWORKS, PARTS
from mmfakd.analysis.benchmark.traffic import measure_traffic, traffic_sides
from tests.helpers.toy import (
    batch,
    feature_distill,
    review_distiller,
    reviewkd_distiller,
)

pytestmark = pytest.mark.skipif(
    not hasattr(torch._C, '_current_autograd_node'),
    reason='older torch does not tell which backward pass runs',
)


def counted(run):
    """Name, bytes read and bytes written of what a call runs."""
    with OperationCounter() as counter:
        run()
    return [
        (o.name.split('.')[1], o.read, o.written)
        for o in counter.operations
        if not o.waits
    ]


X = torch.ones(4, 8)
ONE = 4 * 8 * 4


@pytest.mark.parametrize(
    ('run', 'expected'),
    [
        # Neither views nor memory without numbers in it.
        (lambda: X.t()[1:].unsqueeze(0).expand(3, -1, -1).detach(), []),
        (lambda: torch.empty_like(X).new_empty(3), []),
        (lambda: X[:0] + 1, []),
        (lambda: X + 1, [('add', ONE, ONE)]),
        (lambda: X + X, [('add', ONE, ONE)]),
        (lambda: X.clone().mul_(2), [('clone', ONE, ONE), ('mul_', ONE, ONE)]),
        (lambda: torch.empty_like(X).zero_(), [('zero_', 0, ONE)]),
        (lambda: torch.empty_like(X).copy_(X), [('copy_', ONE, ONE)]),
        (lambda: torch.add(X, 1, out=torch.empty_like(X)), [('add', ONE, ONE)]),
        (lambda: X.sum(), [('sum', ONE, 4)]),
        (lambda: torch.mm(X, X.t()), [('mm', 2 * ONE, 64)]),
        # Numbers that a view shows more than once.
        (lambda: X[:1].expand(4, 8) + 1, [('add', ONE // 4, ONE)]),
        (
            lambda: X.flatten().unfold(0, 3, 1) + 1,
            [('add', ONE, 30 * 3 * 4)],
        ),
        # A choice of them: a row of eight, and its index of eight bytes.
        (
            lambda: X.index_select(0, torch.zeros(1).long()),
            [('zeros', 0, 4), ('_to_copy', 4, 8), ('index_select', 40, 32)],
        ),
        (
            lambda: torch._foreach_add_([X.clone(), X.clone()], 0),
            [('clone', ONE, ONE)] * 2 + [('_foreach_add_', 2 * ONE, 2 * ONE)],
        ),
    ],
)
def test_bytes(run, expected):
    assert counted(run) == expected


def test_waiting_is_told_apart():
    with OperationCounter() as counter:
        X.sum().item()
    assert [o.waits for o in counter.operations] == [False, True]


def test_bytes_of_empty_and_sparse_tensors():
    assert count_bytes(torch.ones(0, 5)) == 0
    assert count_bytes(torch.eye(3).to_sparse()) == 4 * 9


def parts_of(model, inputs):
    """Names of operations by part of a step, in their order."""

    def run():
        losses = model(**inputs, mode='loss')
        model.parse_losses(losses)[0].backward()
        model.zero_grad()

    found = {}
    for operation in launches.list_operations(Side('x', run, 0, [model])):
        name = operation.name.split('.')[1]
        found.setdefault(operation.part, []).append(name)
    return found


@pytest.fixture(scope='module', params=['cpu', 'meta'])
def toy_parts(request):
    """Of FAM-KD and of ReviewKD with four levels each."""
    found = {}
    for name, distiller in (
        ('FAM-KD', review_distiller()),
        ('ReviewKD', reviewkd_distiller()),
    ):
        model = feature_distill(distiller=distiller, report=False).to(request.param)
        model.init_weights = lambda: None
        data = batch()
        data['inputs'] = data['inputs'].to(request.param)
        data['data_samples'] = [d.to(request.param) for d in data['data_samples']]
        found[name] = parts_of(model, model.data_preprocessor(data, True))
    return found


def test_every_operation_has_a_part(toy_parts):
    for found in toy_parts.values():
        assert set(found) < set(PARTS) - {'other', 'hooks', 'recorders'}
    assert set(toy_parts['FAM-KD']) == {
        *(NETWORKS, 'match', 'attention', 'transform', 'product', 'norm'),
        *('losses', 'gradients'),
    }
    assert 'transform' not in toy_parts['ReviewKD']
    assert 'resize' in toy_parts['ReviewKD']


def test_parts_forward_and_backward(toy_parts):
    """By what the layers are known to be made of."""
    norm = toy_parts['FAM-KD']['norm']
    for name in ('native_batch_norm', 'relu', 'threshold_backward'):
        assert norm.count(name) == 4, name
    assert norm.count('native_batch_norm_backward') == 4
    match = toy_parts['ReviewKD']['match']
    assert match.count('convolution') == 4
    assert match.count('native_batch_norm') == match.count('convolution')
    product = toy_parts['ReviewKD']['product']
    assert product.count('convolution') == product.count('convolution_backward') == 4
    assert toy_parts['FAM-KD']['losses'].count('mse_loss_backward') == 4
    for found in toy_parts.values():
        networks = found[NETWORKS]
        assert networks.count('convolution') > networks.count('convolution_backward')
        # Of the root, and what autograd adds up where features are used twice.
        assert {'ones_like', 'add'} <= set(found['gradients'])


@pytest.fixture(scope='module')
def gpu():
    """The steps of R56-R20 at batch 64 on the GPU's path."""
    return count(step_sides(64, 32), 'GPU')


@pytest.fixture(scope='module')
def triton():
    """Those of the floor and of both forms of FAM-KD, with Triton's kernels."""
    sides = step_sides(64, 32)
    return count([sides[0], *sides[-2:]], 'GPU, Triton')


def count(sides, path):
    return launches.count(Case('R56-R20', lambda: sides), Options(), path)['sides']


def step_sides(count, pixels):
    return launches.step_sides(Options(device='meta'), count, pixels)


def added(sides):
    """Operations and bytes that methods add to the floor."""
    floor, *others = sides
    return {
        side['name']: (
            side['operations'] - floor['operations'],
            sum(side[key] - floor[key] for key in ('read', 'written')),
        )
        for side in others
    }


def test_few_operations_are_added(gpu, triton):
    """By the layers, losses and sums of R56-R20; ReviewKD moves as many bytes."""
    plain, kernels = added(gpu), added(triton)
    assert plain['FAM-KD'][0] <= 250 and plain['FAM-KD, layer to layer'][0] <= 150
    assert kernels['FAM-KD'][0] <= 140
    most = plain['ReviewKD'][1]
    assert plain['FAM-KD, layer to layer'][1] <= most
    assert all(moved <= most for _, moved in kernels.values())
    # Windows that are written out are what moves more without kernels.
    attention = gpu[-1]['parts']['attention']
    rest = plain['FAM-KD'][1] - attention['read'] - attention['written']
    assert rest <= most < plain['FAM-KD'][1]


def test_kernels_are_counted(triton):
    names = triton[-1]['names']
    assert {k: n for k, n in names.items() if k.startswith('mmfakd')} == {
        **dict.fromkeys(['mmfakd.attend.default', 'mmfakd.attend_backward.default'], 3),
        'mmfakd.fold_filter.default': 3,
        'mmfakd.unfold_gradients.default': 3,
        'mmfakd.finish_gradients.default': 3,
    }


def test_no_gradient_is_copied(gpu):
    """Autograd takes those of our passes over as they are."""
    for side in gpu[-2:]:
        names = side['names']
        assert names.get('aten.copy_.default', 0) <= 4, 'the convolutions of filters'


def test_count_sums_its_parts(gpu):
    for side in gpu:
        for key in ('operations', 'read', 'written', 'waits'):
            assert side[key] == sum(part[key] for part in side['parts'].values())
        assert side['operations'] == sum(side['names'].values())
        assert side['waits'] == 0, 'a step waits for nothing'
        assert 'other' not in side['parts']
    floor, *others = gpu
    assert all(side['operations'] > floor['operations'] for side in others)
    assert [side['name'] for side in others] == list(launches.METHODS)


def test_convolutions_of_the_floor(gpu):
    """Of ResNet-56 and ResNet-20, and the gradients of the latter."""
    names = gpu[0]['names']
    assert names['aten.convolution.default'] == 55 + 19 + 2 * 2
    assert names['aten.convolution_backward.default'] == 19 + 2


def test_bytes_of_the_floor(gpu):
    """Their weights, features and gradients by hand: of convolutions alone."""
    pixels = 64 * 32 * 32
    # In every stage as many numbers as in the first, divided by 1, 2 and 4.
    feature = 4 * 16 * pixels
    stages = feature * (1 + 1 / 2 + 1 / 4)
    # Each block reads and writes them some ten times, forward and backward.
    assert 9 * 9 * stages < gpu[0]['read'] + gpu[0]['written'] < 40 * 9 * stages


def test_host_times_as_many_operations(gpu):
    """Those of small maps on the CPU, whose projections of few channels are products.

    ReviewKD's loss leaves poolings of maps that small out.
    """
    sides = launches.step_sides(Options(), 2, 8)
    sides = {side.name: side for side in sides}
    large = {side['name']: side['operations'] for side in gpu}
    for name in ("student + teacher's forward", 'FAM-KD', 'FAM-KD, layer to layer'):
        with launches.ways_of('GPU'):
            small = launches.list_operations(sides[name])
        assert len(small) == pytest.approx(large[name], rel=0.05), name


def test_times_take_turns(monkeypatch):
    calls = []
    sides = [Side(name, lambda name=name: calls.append(name), 0) for name in 'ab']
    case = Case('host', lambda: sides, dict(batch=2, pixels=8))
    monkeypatch.setattr(launches, 'list_operations', lambda side: [])
    monkeypatch.setattr(launches.time, 'thread_time', lambda: len(calls) ** 2)
    result = launches.time_steps(case, Options(rounds=3))
    assert ''.join(calls) == 'ab' + 'ba' + 'ab'
    seconds = [side['seconds'] for side in result['sides']]
    assert seconds == [
        dict(least=1, rounds=[1, 7, 9]),
        dict(least=3, rounds=[3, 5, 11]),
    ]


def test_traffic():
    [copy, total, *_] = traffic_sides(2**12)
    result = measure_traffic(Case('traffic', lambda: [copy, total]), Options(rounds=2))
    found = [side['bytes'] for side in result['sides']]
    assert found == [2 * 4 * 2**12, 3 * 4 * 2**12]
    for side in result['sides']:
        speed = side['bytes'] / side['seconds']
        assert side['bytes_per_second'] == pytest.approx(speed)


def test_tables(gpu):
    """A row a part, with operations and megabytes, and what is added to the floor."""
    case = dict(name='R56-R20', sides=gpu)
    rows = {}
    for line in format_launches([case]).splitlines():
        if line.startswith('|'):
            first, *cells = [cell.strip() for cell in line.strip('|').split('|')]
            rows[first] = cells
    assert rows['part'] == [side['name'] for side in gpu]
    for part in PARTS:
        found = [side['parts'].get(part) for side in gpu]
        if any(found):
            assert rows[part] == [
                f'{p["operations"]} ({(p["read"] + p["written"]) / 1e6:.0f})'
                if p
                else ''
                for p in found
            ]
        else:
            assert part not in rows
    counts = [int(cell.split(' ')[0]) for cell in rows['in all']]
    added = [int(cell.split(' ')[0]) for cell in rows['added'][1:]]
    assert added == [count - counts[0] for count in counts[1:]]


def test_command(tmp_path, capsys, monkeypatch):
    """Tables of what is in the file: a detector's connectors, the runner's hooks."""
    pytest.importorskip('mmdet')
    methods = {'KD': 'kd', 'FAM-KD': 'fakd_review'}
    monkeypatch.setattr(launches, 'METHODS', methods)
    path = tmp_path / 'launches.json'
    arguments = ['--suite', 'launches', '--only', 'connectors.*GPU path|hooks']
    arguments += ['--threads', '1', '--min-time', '0.001', '--image-size', '64']
    cli.main(['benchmark', *arguments, '-o', str(path)])
    cases = json.loads(path.read_text())['suites']['launches']
    assert format_launches(cases) in capsys.readouterr().out
    connectors, hooks = cases
    assert connectors['path'] == 'GPU' and connectors['height'] == 64
    # Five levels, each with a norm, forward and backward.
    for side in connectors['sides']:
        assert side['names']['aten.native_batch_norm_backward.default'] >= 5
    # The student's loss and all in all; KD's, or those of four levels and a warm-up.
    assert [side['waits'] for side in hooks['sides']] == [2 + 1, 2 + 4 + 1]


def test_mixed_precision_is_refused():
    with pytest.raises(ValueError, match='counts in float32'):
        launches.launch_cases(Options(amp='bfloat16'))
