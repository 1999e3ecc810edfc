# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Single figures of what `mmfakd compare --json` wrote, for sentences.

    last; METHOD                mean of its last scores
    last; METHOD; SEED          that of one seed
    epoch N; METHOD; SEED       the score after that epoch
    gain; METHOD                difference to the first method, paired by seed
    gain; METHOD; OTHER         difference to another one
    spread; METHOD              standard deviation of its last scores
    seconds; METHOD             time of training, the mean of its runs
    added; METHOD               weights that only training has
    parameters; METHOD          those of the model that stays

``teacher`` is a method, too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from comparison_table import SCORES, difference, scores_by_seed

Comparison = dict[str, Any]


def write_figure(comparison: Comparison, words: str) -> str:
    """Write a figure.

    Args:
        comparison (dict): What `mmfakd compare --json` wrote.
        words (str): What is asked for, as above.

    Returns:
        str: The figure.

    Raises:
        ValueError: If there is no such figure, or no such method.
    """
    what, *names = (word.strip() for word in words.split(';'))
    kind, _, number = what.partition(' ')
    if kind not in FIGURES:
        raise ValueError(f'{words!r}: no such figure; there are {", ".join(FIGURES)}')
    return FIGURES[kind](comparison, number, *names)


def _method(comparison: Comparison, name: str) -> dict[str, Any]:
    known = {method['method']: method for method in comparison['methods']}
    if comparison['teacher']:
        known['teacher'] = comparison['teacher']
    if name not in known:
        raise ValueError(f'no method {name!r}; there are {", ".join(map(repr, known))}')
    return known[name]


def _last(comparison: Comparison, _: str, name: str, seed: str | None = None) -> str:
    scores = scores_by_seed(comparison, _method(comparison, name))
    value = statistics.fmean(scores.values()) if seed is None else scores[int(seed)]
    return f'{value:{SCORES[comparison["metric"]][2]}}'


def _epoch(comparison: Comparison, epoch: str, name: str, seed: str) -> str:
    _, factor, _ = SCORES[comparison['metric']]
    runs = _method(comparison, name)['runs']
    [curve] = [dict(run['curve']) for run in runs if run['seed'] == int(seed)]
    return f'{factor * curve[int(epoch)]:.1f}'


def _gain(comparison: Comparison, _: str, name: str, other: str | None = None) -> str:
    other = other or comparison['methods'][0]['method']
    scores = scores_by_seed(comparison, _method(comparison, name))
    others = scores_by_seed(comparison, _method(comparison, other))
    return difference(scores, others, SCORES[comparison['metric']][2])


def _spread(comparison: Comparison, _: str, name: str) -> str:
    scores = scores_by_seed(comparison, _method(comparison, name))
    form = SCORES[comparison['metric']][2]
    return f'{statistics.stdev(scores.values()):{form}}'


def _seconds(comparison: Comparison, _: str, name: str) -> str:
    return f'{_method(comparison, name)["seconds"]:.0f}'


FIGURES: dict[str, Callable[..., str]] = {
    'last': _last,
    'epoch': _epoch,
    'gain': _gain,
    'spread': _spread,
    'seconds': _seconds,
    'added': lambda log, _, name: f'{_method(log, name)["added"]:,}',
    'parameters': lambda log, _, name: f'{_method(log, name)["parameters"]:,}',
}
