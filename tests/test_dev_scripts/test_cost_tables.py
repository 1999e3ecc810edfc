# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tables of costs, and of gains beside costs."""

import json

import cost_tables
import decision_table
import pytest

PAIR = 'r56_r20_1xb64_cifar100'

MACHINE = dict(
    machine=dict(
        processor='A CPU',
        torch='2.11.0',
        cuda=None,
        flop_per_second=26.4e9,
        bytes_per_second=9.5e9,
    ),
    settings=dict(threads=1, amp='none', rounds=3),
)


def side(name, *seconds, megabytes=80, parameters=5_000_000):
    peak = int(1e6 * megabytes - 4 * parameters)
    rounds = dict(median=sorted(seconds)[len(seconds) // 2], rounds=list(seconds))
    return dict(name=name, seconds=rounds, peak_bytes=peak, parameters=parameters)


def measured(*methods):
    names = [f'{method["name"]}_{PAIR}' for method in methods]
    sides = [
        side(cost_tables.FLOOR, 0.2, 0.2, 0.2),
        side('student alone', 0.1, 0.1, 0.1),
    ]
    sides += [{**method, 'name': name} for method, name in zip(methods, names)]
    return dict(MACHINE, suites=dict(step=[dict(configs=names, sides=sides)]))


@pytest.fixture
def log(tmp_path):
    """ReviewKD and KD of one pair, and naive layers, which are left out."""
    path = tmp_path / 'cpu_pair.json'
    report = measured(
        side('reviewkd', 0.4, 0.5, 0.6, megabytes=160, parameters=6_000_000),
        side('kd', 0.2, 0.3, 0.4),
    )
    report['suites']['step'][0]['sides'].append(side('kd, naive layers', 9, 9, 9))
    path.write_text(json.dumps(report))
    return path


def test_costs(log):
    *rows, empty, machine = cost_tables.write_costs(log)
    assert rows[2:] == [
        '| student alone | 1 | 100 ms | 1 | 80 MB | 0 |',
        "| the teacher's forward pass beside it | 2.00 | 200 ms | 1 | 80 MB | 0 |",
        '| KD | 3.00 (2.50-3.50) | 300 ms | 1 | 80 MB | 0 |',
        '| ReviewKD | 5.00 (4.50-5.50) | 500 ms | 2.00 | 160 MB | 1,000,000 |',
    ]
    # How fast the machine was then, and so how busy.
    assert empty == '' and machine == (
        'A CPU, 1 CPU thread, torch 2.11.0, mixed precision: none; a large matrix '
        'product runs at 26 GFLOP/s, a large copy at 9.5 GB/s. 3 rounds.'
    )


def test_memory_is_all_that_is_held(log):
    """The teacher's weights and the optimizer's state, where they were counted."""
    report = json.loads(log.read_text())
    sides = {s['name']: s for s in report['suites']['step'][0]['sides']}
    for name, megabytes in (('student alone', 140), (f'kd_{PAIR}', 210)):
        side = sides[name]
        side['held_bytes'] = int(1e6 * megabytes) - side['peak_bytes']
    log.write_text(json.dumps(report))
    costs = cost_tables.read_costs(log)
    assert costs['KD'].megabytes == 210 and costs['KD'].memory == 1.5
    assert costs['student alone'].megabytes == 140


def test_a_gpu_adds_columns(log):
    gpu = measured(side('kd', 1.2, 1.2, 1.2))
    (log.parent / 'gpu_pair.json').write_text(json.dumps(gpu))
    header, _, *rows = cost_tables.write_costs(log)
    assert 'GPU: time, relative' in header
    assert rows[2].endswith('| 0 | 12.00 | 1.2 s | 1 | 80 MB |')
    assert rows[3].endswith('| 1,000,000 |  |  |  |  |')
    assert len(rows) == 7 and all(row.startswith('A CPU, ') for row in rows[5:])


def test_decisions():
    """What the page shows is what the logs have."""
    header, _, *rows = decision_table.write_decisions()
    cells = {row.split('|')[1].strip(): row.split('|')[2:-1] for row in rows}
    assert [*cells] == [*decision_table.METHODS]
    assert header.count('gain, ') == len(decision_table.GAINS)
    log = json.loads((decision_table.PAGES / 'results/logs/digits.json').read_text())
    [kd] = [m for m in log['methods'] if m['method'] == 'KD']
    assert cells['KD'][0].strip().startswith(f'{kd["difference"]["mean"]:+.2f}')
    # Never tried on cells.
    assert cells['KD'][2].strip() == ''
    costs = cost_tables.read_costs(decision_table.PAGES / 'costs/cpu_r56_r20.json')
    cost = costs['FAM-KD, review']
    assert (
        cells['FAM-KD, review'][3].strip() == f'{cost.times[0]:.2f}, {cost.memory:.2f}'
    )
