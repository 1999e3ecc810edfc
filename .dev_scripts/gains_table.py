# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What FAM-KD layer to layer gains on every set that was trained, in one table."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from comparison_table import SCORES, difference, scores_by_seed
from decision_table import GAINS, METHODS, PAGES

from mmfakd.messages import markdown

METHOD = 'FAM-KD, layer to layer'


def write_gains() -> list[str]:
    """Write the table.

    Returns:
        list[str]: Its lines, in Markdown.
    """
    header = ['data', 'score', 'student alone', METHOD, 'gain', 'seeds']
    rows = [_row(name, PAGES / first) for name, (first, *_) in GAINS.items()]
    return markdown([header, *rows])


def _row(name: str, log: Path) -> list[str]:
    comparison = json.loads(log.read_text())
    score, _, form = SCORES[comparison['metric']]
    alone, *methods = comparison['methods']
    names = (METHOD, *METHODS[METHOD])
    [taught] = [method for method in methods if method['method'] in names]
    scores = [scores_by_seed(comparison, method) for method in (alone, taught)]
    means = [
        f'{statistics.fmean(s.values()):{form}} ({statistics.stdev(s.values()):{form}})'
        for s in scores
    ]
    seeds = len(scores[0].keys() & scores[1].keys())
    gain = difference(scores[1], scores[0], form)
    return [name, score, *means, gain, str(seeds)]
