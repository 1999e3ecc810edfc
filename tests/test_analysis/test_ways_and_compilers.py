# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The suites ways, compile and kernels: what they measure, not how fast that is."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from mmfakd import cli
from mmfakd.analysis.benchmark import compiled, device_work, ways
from mmfakd.analysis.benchmark.launch_tables import format_launches
from mmfakd.analysis.benchmark.measure import Case, Options, Side
from mmfakd.analysis.benchmark.report import format_compiled, format_suite
from mmfakd.analysis.benchmark.suites import Size
from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from mmfakd.ops import chooser

FEW = Options(rounds=2, min_time=0.001)


@pytest.mark.parametrize('kind', [FrequencyAttention, LocalCrossAttention])
@pytest.mark.parametrize('faster', [False, True])
def test_the_chosen_way_against_the_usual_one(kind, faster, monkeypatch):
    """With a timer by which the last way that is timed is the fastest, or none is."""
    times = itertools.count()
    timer = (lambda *_: 0.5 ** next(times)) if faster else (lambda *_: 1.0)
    monkeypatch.setattr(
        chooser.Chooser.__init__, '__defaults__', (None, None, timer, None)
    )
    sides = ways._sides(kind, Size(2, 4, 6), Options())
    names = [side.name for side in sides]
    assert names[0] == 'usual: blocks' and len(names) == 1 + faster
    if faster:
        assert names[1].startswith('chosen: ') and names[1][8:] != 'blocks'
    for side in sides:
        side.run()
    case = Case('layer', lambda: sides, dict(batch=2), ways.measure_choice)
    result = ways.measure_choice(case, FEW)
    assert result['batch'] == 2 and result['seconds'] > 0
    table = format_suite('ways', [result])
    assert all(f'| {name} |' in table for name in names)


def test_command_of_ways(tmp_path, capsys):
    path = tmp_path / 'ways.json'
    arguments = ['--suite', 'ways', '--only', 'Attention, batch 2, 64 channels, 8 px']
    arguments += ['--batch-size', '2', '--rounds', '1', '--min-time', '0.001']
    cli.main(['benchmark', *arguments, '--threads', '1', '-o', str(path)])
    cases = json.loads(path.read_text())['suites']['ways']
    assert [case['name'].partition(',')[0] for case in cases] == [
        'FrequencyAttention',
        'LocalCrossAttention',
    ]
    assert format_suite('ways', cases) in capsys.readouterr().out


def test_steps_to_compile():
    """Of batches of four sizes; nothing is compiled before it runs."""
    sides = compiled.compiled_steps(FEW, 6, 8)
    assert [side.name for side in sides] == list(compiled._KINDS)
    taken = []
    plain = sides[0].modules[0]
    plain.register_forward_pre_hook(
        lambda _, args, kwargs: taken.append(len(kwargs['inputs'])), with_kwargs=True
    )
    for fewer in range(4):
        sides[0].run(fewer)
    assert taken == [6, 5, 4, 3]


def test_counts_graphs_of_sizes():
    """The first size makes one, the next a dynamic one, which serves others, too."""
    function = torch.compile(lambda x: (x * 2).sum(), backend='eager')
    inputs = [torch.ones(9 - n) for n in range(4)]
    sides = [
        Side('plain', lambda: inputs[0].sum(), 1),
        Side('compiled', lambda fewer=0: function(inputs[fewer]), 1),
    ]
    case = Case('x', lambda: sides, dict(batch=9))
    result = compiled.measure_compiled(case, FEW)
    torch._dynamo.reset()
    [side] = result['sides']
    assert side['graphs'] == 1 and side['more'] == [1, 0, 0] and side['first'] > 0
    assert side['time_ratio']['median'] > 0
    assert '| 1 | 1, 0, 0 |' in format_compiled([result])


def event(name, microseconds, device=DeviceType.CUDA):
    elapsed = SimpleNamespace(elapsed_us=lambda: microseconds)
    return SimpleNamespace(name=name, device_type=device, time_range=elapsed)


def test_kernels_are_told_from_transfers_and_from_the_host():
    events = [
        event('gemm', 30),
        event('Memcpy HtoD', 5),
        event('Memset (Device)', 1),
        event('aten::mm', 100, DeviceType.CPU),
    ]
    found = device_work.sum_events(events)
    assert found == dict(kernels=1, transfers=2, busy=pytest.approx(36e-6))


def test_table_of_kernels():
    """Here the CPU's own records, in which no GPU runs anything."""
    side = Side('step', lambda: torch.ones(9).sum(), 0)
    case = Case('kernels', lambda: [side], dict(batch=2))
    result = device_work.count_kernels(case, FEW)
    [figures] = result['sides']
    assert figures['kernels'] == figures['busy'] == 0 < figures['seconds']
    assert '| step | 0 | 0 | 0.00 |' in format_launches([result])
