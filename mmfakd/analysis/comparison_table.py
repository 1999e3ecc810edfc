# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The table of a comparison of trainings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from mmfakd.messages import markdown, printable


def format_table(comparison: dict) -> str:
    """Format a comparison as a Markdown table with its notes below.

    Args:
        comparison (dict): What :func:`compare_runs.compare` returns.

    Returns:
        str: The table.
    """
    rows = [comparison['teacher']] if comparison['teacher'] else []
    rows += comparison['methods']
    # Percent, or a fraction of one.
    in_percent = max(run['best'] for row in rows for run in row['runs']) > 1
    form = '.2f' if in_percent else '.4f'
    cells: dict[str, Callable[[dict], str]] = {
        'method': lambda row: row['method'],
        'seeds': lambda row: _seeds(row['runs']),
        f'last {comparison["metric"]}': lambda row: _mean_deviation(row['last'], form),
        'best': lambda row: _mean_deviation(row['best'], form),
        f'minus {comparison["baseline"]}': lambda row: _mean_error(
            row['difference'], form
        ),
        'train time': lambda row: _duration(row['seconds']),
        'per step': lambda row: _duration(row['step_seconds']),
        'loading data': lambda row: _known(row['data_share'], '{:.0%}'),
        'parameters': lambda row: _known(row['parameters'], '{:,}'),
        'added in training': lambda row: _known(row['added'], '{:,}'),
    }
    lines = [
        *markdown(
            [[*cells], *([cell(row) for cell in cells.values()] for row in rows)]
        ),
        '',
        'Scores: higher is better; mean over the seeds (sample standard deviation). '
        'Differences: of the last scores, mean of the pairs ± its standard error. '
        'Times: of training iterations alone, from the logs.',
    ]
    if comparison['notes']:
        lines += ['', 'Notes:', '', *(f'- {note}' for note in comparison['notes'])]
    return printable('\n'.join(lines))


def _seeds(runs: list[dict]) -> str:
    """Seeds, runs of three and more of them as a range."""
    known = sorted(run['seed'] for run in runs if run['seed'] is not None)
    parts: list[str] = []
    for _, group in groupby(enumerate(known), lambda pair: pair[1] - pair[0]):
        seeds = [str(seed) for _, seed in group]
        parts += [f'{seeds[0]}-{seeds[-1]}'] if len(seeds) > 2 else seeds
    if len(known) < len(runs):
        parts.append(f'{len(runs) - len(known)} unknown')
    return ', '.join(parts) or 'none'


def _mean_deviation(value: dict, form: str) -> str:
    mean, deviation = f'{{:{form}}}', f' ({{:{form}}})'
    return _known(value['mean'], mean) + _known(value['spread'], deviation)


def _mean_error(value: dict | None, form: str) -> str:
    if value is None:
        return ''
    mean, error = f'{{:+{form}}}', f' ± {{:{form}}}'
    return _known(value['mean'], mean) + _known(value['standard_error'], error)


def _known(value: float | None, template: str) -> str:
    return '' if value is None else template.format(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ''
    for size, name in ((3600, 'h'), (60, 'min')):
        if seconds >= 2 * size:
            return f'{seconds / size:.1f} {name}'
    return f'{seconds:.1f} s' if seconds >= 1 else f'{1000 * seconds:.3g} ms'
