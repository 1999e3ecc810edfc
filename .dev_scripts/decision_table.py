# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the methods gain, and what they cost, in one table."""

from __future__ import annotations

import json
from pathlib import Path

from comparison_table import SCORES, difference, scores_by_seed
from cost_tables import read_costs

from mmfakd.messages import markdown

PAGES = Path(__file__).resolve().parents[1] / 'docs' / 'en'
# Heading -> comparisons, of which the first has most methods.
GAINS = {
    'digits': ('results/logs/digits.json', 'results/logs/digits_balance.json'),
    'CIFAR-100': ('results/logs/cifar100_short.json',),
    'BCCD': ('results/logs/bccd_gfl.json',),
}
ALONE = 'student alone'
# Heading -> costs.
COSTS = {
    'CIFAR-100': 'costs/cpu_r56_r20.json',
    'BCCD': 'costs/cpu_gfl_r18_r18w16.json',
}
# As costs call it -> what the comparisons call it besides.
METHODS = {
    'KD': (),
    'DKD': (),
    'NKD': (),
    'DIST': (),
    'KD of standardised logits': (),
    'multi-level logits': (),
    'PKD': (),
    'CWD': (),
    'ReviewKD': (),
    'FAM-KD, layer to layer': ('FAM-KD layer to layer',),
    'the same, weights measured': (
        'FAM-KD, layer to layer, balanced',
        'FAM-KD layer to layer, balance',
    ),
    'FAM-KD, review': ('FAM-KD', 'FAM-KD with review'),
}


def write_decisions() -> list[str]:
    """Write the table.

    Returns:
        list[str]: Its lines, in Markdown.
    """
    gains = {name: _gains(*logs) for name, logs in GAINS.items()}
    costs = {name: read_costs(PAGES / log) for name, log in COSTS.items()}
    header = ['method', *(f'gain, {name}' for name in gains)]
    rows = [[*header, *(f'time, memory: {name}' for name in costs)]]
    for method, others in METHODS.items():
        row = [method]
        for found in gains.values():
            known = [found[name] for name in (method, *others) if name in found]
            row.append(known[0] if known else '')
        for by_method in costs.values():
            cost = by_method.get(method)
            row.append(f'{cost.times[0]:.2f}, {cost.memory:.2f}' if cost else '')
        rows.append(row)
    return markdown(rows)


def _gains(*logs: str) -> dict[str, str]:
    """Method -> what it gains over the student alone, in the first log that has it."""
    found: dict[str, str] = {}
    for log in logs:
        comparison = json.loads((PAGES / log).read_text())
        form = SCORES[comparison['metric']][2]
        scores = {
            method['method']: scores_by_seed(comparison, method)
            for method in comparison['methods']
        }
        base = scores.pop(ALONE)
        for name, by_seed in scores.items():
            found.setdefault(name, difference(by_seed, base, form))
    return found
