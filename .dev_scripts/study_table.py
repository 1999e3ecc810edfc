# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What `study_fit.py` has added to a comparison, as a table."""

from __future__ import annotations

import statistics
from typing import Any

from comparison_table import SCORES, difference, scores_by_seed
from study_fit import median_fit

from mmfakd.messages import markdown


def write_study(log: dict[str, Any]) -> list[str]:
    """Write what connectors cost, how they fit and pull, and what students gain.

    Args:
        log (dict): A comparison with ``fit`` and ``pull`` in its runs; its first method
            is the student alone.

    Returns:
        list[str]: The lines of the table, in Markdown.
    """
    score, _, form = SCORES[log['metric']]
    alone = scores_by_seed(log, log['methods'][0])
    rows = [['method', 'weights', 'unexplained', 'pull', score, 'gain', 'seeds']]
    for method in log['methods']:
        scores = scores_by_seed(log, method)
        fit = median_fit(method)
        fitted = sum('fit' in run for run in method['runs'])
        of = '' if fitted in (0, len(scores)) else f' ({fitted} seeds)'
        pulls = [pull for run in method['runs'] for pull in run.get('pull', [])]
        rows.append(
            [
                method['method'],
                f'{(method["added"] or 0) / 1e6:.2f} M',
                '' if fit is None else f'{fit:.3f}{of}',
                f'{statistics.median(pulls):.2g}' if pulls else '',
                f'{statistics.fmean(scores.values()):{form}}',
                '' if scores is alone else difference(scores, alone, form),
                str(len(scores)),
            ]
        )
    rows[1][5] = ''
    return markdown(rows)
