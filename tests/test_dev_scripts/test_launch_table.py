# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tables of what was counted, before and after."""

import json

import pytest
from launch_table import write_launches
from result_tables import write_suite


def side(name, count, **parts):
    """A side of `count` operations, which move a megabyte each."""
    parts = {part: numbers(n) for part, n in parts.items()}
    return dict(name=name, **numbers(count), parts=parts)


def numbers(count):
    return dict(operations=count, read=300_000 * count, written=700_000 * count)


def step(path, *added):
    floor, ours = {'student and teacher': 10}, {'match': added[-1]}
    sides = [side('floor', 10, **floor), side('KD', 11, **floor)]
    for name, more in zip(('ReviewKD', 'FAM-KD, layer to layer'), added):
        sides.append(side(name, 10 + more, **floor))
    sides.append(side('FAM-KD', 10 + added[-1], **floor, **ours))
    return dict(name='step', path=path, pixels=32, sides=sides)


@pytest.fixture
def log(tmp_path):
    steps = dict(before=[step('GPU', 5, 6, 9)])
    steps['now'] = [step('GPU', 5, 4, 3), step('GPU, Triton', 5, 2, 1)]
    speed = dict(name='copy', bytes=2e6, seconds=0.001, bytes_per_second=2e9)
    timed = dict(name='host', path='GPU', pixels=8, sides=[dict(name='floor')])
    steps['now'] += [dict(name='traffic', sides=[speed]), timed]
    for name, file in (('before', 'counts_before.json'), ('now', 'counts.json')):
        report = dict(suites=dict(launches=steps[name]))
        (tmp_path / file).write_text(json.dumps(report))
    return tmp_path / 'counts.json'


def test_what_methods_add(log):
    assert write_launches(log, 'added')[2:] == [
        '| ReviewKD | 5 (5) | 5 (5) | 5 (5) |',
        '| FAM-KD, layer to layer | 6 (6) | 4 (4) | 2 (2) |',
        '| FAM-KD | 9 (9) | 3 (3) | 1 (1) |',
    ]


def test_by_part(log):
    """What is the same without distillation is left out."""
    assert write_launches(log, 'parts') == [
        "| part | before | now | now, with Triton's kernels |",
        '| --- | --- | --- | --- |',
        '| match | 9 (9) | 3 (3) | 1 (1) |',
        '| in all | 9 (9) | 3 (3) | 1 (1) |',
    ]


def test_what_was_timed(log):
    lines = write_launches(log, 'traffic')
    assert lines[0].startswith('| operation |')
    assert lines[2] == '| copy | 2.0 | 1.0 | 2.0 |'


def test_a_suite_as_the_benchmark_prints_it(tmp_path):
    quartiles = dict(q1=0.8, median=0.9, q3=1.0)
    compiled = dict(name='compile', first=3.2, graphs=2, more=[1, 0, 0])
    case = dict(name='a step', sides=[dict(compiled, time_ratio=quartiles)])
    machine = dict(processor='A CPU', torch='2.11', cuda=None)
    machine.update(flop_per_second=1e9, bytes_per_second=2e9)
    report = dict(machine=machine, settings=dict(threads=2, amp='none', rounds=5))
    report['suites'] = dict(compile=[case])
    (tmp_path / 'log.json').write_text(json.dumps(report))
    lines = write_suite(tmp_path / 'log.json', 'compile')
    assert '| a step | compile | 0.90 (0.80-1.00) | 3 | 2 | 1, 0, 0 |' in lines
    assert lines[-1].startswith('A CPU, 2 CPU threads, torch 2.11')
