# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What `mmfakd compare --json` wrote, as a table."""

from __future__ import annotations

import math
import statistics
from typing import Any

from mmfakd.messages import markdown

# What a score is called, and what its unit is multiplied with.
SCORES = {
    'accuracy/top1': ('top-1, %', 1, '.2f'),
    'coco/bbox_mAP': ('mAP', 100, '.1f'),
    'mIoU': ('mIoU', 1, '.2f'),
}


def write_table(comparison: dict[str, Any], how: str = '') -> list[str]:
    """Write the table of a comparison.

    Args:
        comparison (dict): What `mmfakd compare --json` wrote.
        how (str): ``'in pairs'``, where each second method is compared with the one
            before it, or ``'in short'``, without the single seeds, but with their
            number where it differs. Defaults to all methods against the first.

    Returns:
        list[str]: Its lines, in Markdown.
    """
    score, factor, form = SCORES[comparison['metric']]
    methods = comparison['methods']
    seeds = sorted({run['seed'] for method in methods for run in method['runs']})
    shown = [] if how == 'in short' else seeds
    scores = [scores_by_seed(comparison, method) for method in methods]
    counted = how == 'in short' and len(set(map(len, scores))) > 1
    means = [statistics.fmean(of_one.values()) for of_one in scores]
    first = 'the one above' if how == 'in pairs' else methods[0]['method']
    rows = [['method', f'{score}, last', f'minus {first}']]
    rows[0] += [*(f'seed {seed}' for seed in shown), *['seeds'] * counted]
    rows[0].append('added in training')
    if teacher := comparison['teacher']:
        name = f'teacher ({teacher["parameters"]:,} parameters)'
        last = f'{factor * teacher["last"]["mean"]:{form}}'
        rows.append([name, last, *[''] * (len(rows[0]) - 2)])
    for place, (method, of_one) in enumerate(zip(methods, scores)):
        mean = f'{means[place]:{form}}'
        if len(of_one) > 1:
            mean += f' ({statistics.stdev(of_one.values()):{form}})'
        name = method['method']
        if place == 0 and method['parameters']:
            name += f' ({method["parameters"]:,} parameters)'
        against = scores[place - place % 2 if how == 'in pairs' else 0]
        rows.append(
            [
                name,
                f'**{mean}**' if means[place] == max(means) else mean,
                '' if against is of_one else difference(of_one, against, form),
                *(f'{of_one[s]:{form}}' if s in of_one else '' for s in shown),
                *[str(len(of_one))] * counted,
                '' if method['added'] is None else f'{method["added"]:,}',
            ]
        )
    return markdown(rows)


def scores_by_seed(comparison: dict[str, Any], method: dict[str, Any]) -> dict:
    """Read the last scores of a method.

    Args:
        comparison (dict): What `mmfakd compare --json` wrote.
        method (dict): One of its methods.

    Returns:
        dict: Seed -> score.
    """
    _, factor, _ = SCORES[comparison['metric']]
    return {run['seed']: factor * run['last'] for run in method['runs']}


def difference(scores: dict, others: dict, form: str) -> str:
    """Write the difference of two methods, paired by seed.

    Args:
        scores (dict): Seed -> score of one.
        others (dict): The same of the other.
        form (str): Format of numbers.

    Returns:
        str: Mean and its standard error; '' where they share no seed.
    """
    values = [scores[seed] - others[seed] for seed in scores if seed in others]
    if not values:
        return ''
    error = ''
    if len(values) > 1:
        error = f' ± {statistics.stdev(values) / math.sqrt(len(values)):{form}}'
    return f'{statistics.fmean(values):+{form}}{error}'
