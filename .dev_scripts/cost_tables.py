# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What `mmfakd benchmark --suite step -o` measured, as tables of methods.

A file is called cpu_PAIR.json or gpu_PAIR.json. The table of the first gets columns of
the second once that is there.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from mmfakd.analysis.benchmark.measure import side_bytes
from mmfakd.analysis.benchmark.report import format_machine
from mmfakd.analysis.benchmark.step import FLOOR
from mmfakd.messages import markdown

ALONE = 'student alone'
# Beginnings of config names -> what the methods are called.
METHODS = {
    'kd': 'KD',
    'lskd': 'KD of standardised logits',
    'mlkd': 'multi-level logits',
    'dkd': 'DKD',
    'nkd': 'NKD',
    'dist': 'DIST',
    'rkd': 'RKD',
    'crd': 'CRD',
    'at': 'AT',
    'fitnet': 'FitNet',
    'ofd': 'OFD',
    'pkd': 'PKD',
    'cwd': 'CWD',
    'reviewkd': 'ReviewKD',
    'fakd_layer': 'FAM-KD, layer to layer',
    'fakd_review': 'FAM-KD, review',
}


class Cost(NamedTuple):
    """What a step takes.

    Args:
        seconds (float): Time, the median of the rounds.
        times (tuple[float, float, float]): That over the student's alone: the median,
            and the quartiles.
        megabytes (float): The most that tensors take at once, with all weights and
            the state of the optimizer.
        memory (float): That over the student's alone.
        added (int): Weights that only training has.
    """

    seconds: float
    times: tuple[float, float, float]
    megabytes: float
    memory: float
    added: int


def read_costs(log: Path) -> dict[str, Cost]:
    """Read what the steps of a pair take.

    Args:
        log (Path): What the benchmark wrote.

    Returns:
        dict[str, Cost]: Method -> its cost, the cheapest first.
    """
    [case] = json.loads(log.read_text())['suites']['step']
    sides = {side['name']: side for side in case['sides']}
    costs = {
        _method(name): _cost(sides[name], sides[ALONE]) for name in case['configs']
    }
    costs = dict(sorted(costs.items(), key=lambda item: item[1].times[0]))
    first = {ALONE: ALONE, "the teacher's forward pass beside it": FLOOR}
    return {
        name: _cost(sides[side], sides[ALONE]) for name, side in first.items()
    } | costs


def _method(config: str) -> str:
    known = [start for start in METHODS if config.startswith(f'{start}_')]
    return METHODS[max(known, key=len)]


def _cost(side: dict[str, Any], alone: dict[str, Any]) -> Cost:
    rounds = zip(side['seconds']['rounds'], alone['seconds']['rounds'])
    ratios = [mine / other for mine, other in rounds]
    quartiles = ratios * 3
    if len(ratios) > 1:
        quartiles = statistics.quantiles(ratios, n=4, method='inclusive')
    low, middle, high = quartiles
    bytes_of = [side_bytes(s) for s in (side, alone)]
    return Cost(
        seconds=side['seconds']['median'],
        times=(middle, low, high),
        megabytes=bytes_of[0] / 1e6,
        memory=bytes_of[0] / bytes_of[1],
        added=side['parameters'] - alone['parameters'],
    )


def write_costs(log: Path) -> list[str]:
    """Write the table of a pair.

    Args:
        log (Path): cpu_PAIR.json.

    Returns:
        list[str]: Its lines, in Markdown, and what it was measured on.
    """
    costs = read_costs(log)
    gpu = log.with_name(log.name.replace('cpu_', 'gpu_', 1))
    on_gpu = read_costs(gpu) if gpu.is_file() else {}
    logs = [log, gpu] if on_gpu else [log]
    machines = [format_machine(json.loads(path.read_text())) for path in logs]
    header = ['method', 'time, relative', 'time', 'memory, relative', 'memory']
    header.append('added in training')
    if on_gpu:
        header += ['GPU: time, relative', 'time', 'memory, relative', 'memory']
    rows = [header]
    for name, cost in costs.items():
        row = [name, *_shown(cost), f'{cost.added:,}']
        if on_gpu:
            row += _shown(on_gpu[name]) if name in on_gpu else [''] * 4
        rows.append(row)
    return [*markdown(rows), '', *machines]


def _shown(cost: Cost) -> list[str]:
    middle, low, high = cost.times
    time = '1' if low == middle == high == 1 else f'{middle:.2f}'
    if low < high:
        time += f' ({low:.2f}-{high:.2f})'
    memory = '1' if cost.memory == 1 else f'{cost.memory:.2f}'
    return [time, _time(cost.seconds), memory, f'{cost.megabytes:.0f} MB']


def _time(seconds: float) -> str:
    return f'{seconds:.1f} s' if seconds >= 1 else f'{1e3 * seconds:.0f} ms'
