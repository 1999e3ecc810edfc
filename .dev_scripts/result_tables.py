# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write the tables of result pages from their logs.

    python .dev_scripts/result_tables.py [--check]

In a page under docs/, between the lines

    <!-- table of logs/NAME.json -->
    <!-- end of the table -->

stands the table of that log, which `mmfakd compare --json` wrote: mean and sample
standard deviation of the last scores, and differences to the first method, paired by
seed. The path is relative to the page. With `logs/NAME.json, in pairs` the second
method is compared with the first, the fourth with the third, and so on.

With `--check` nothing is written, and the exit status says whether a page differs.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from mmfakd.messages import markdown

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = re.compile(
    r'(<!-- table of (\S+\.json)(, in pairs)? -->\n)(.*?)(<!-- end of the table -->)',
    re.S,
)
# What a score is called, and what its unit is multiplied with.
SCORES = {
    'accuracy/top1': ('top-1, %', 1, '.2f'),
    'coco/bbox_mAP': ('mAP', 100, '.1f'),
    'mIoU': ('mIoU', 1, '.2f'),
}


def write_table(comparison: dict[str, Any], in_pairs: bool = False) -> list[str]:
    """Write the table of a comparison.

    Args:
        comparison (dict): What `mmfakd compare --json` wrote.
        in_pairs (bool): Whether each second method is compared with the one before it.
            Defaults to False: all with the first.

    Returns:
        list[str]: Its lines, in Markdown.
    """
    score, factor, form = SCORES[comparison['metric']]
    methods = comparison['methods']
    seeds = sorted({run['seed'] for method in methods for run in method['runs']})
    scores = [
        {run['seed']: factor * run['last'] for run in method['runs']}
        for method in methods
    ]
    means = [statistics.fmean(of_one.values()) for of_one in scores]
    first = 'the one above' if in_pairs else methods[0]['method']
    rows = [['method', f'{score}, last', f'minus {first}']]
    rows[0] += [*(f'seed {seed}' for seed in seeds), 'added in training']
    if teacher := comparison['teacher']:
        name = f'teacher ({teacher["parameters"]:,} parameters)'
        last = f'{factor * teacher["last"]["mean"]:{form}}'
        rows.append([name, last, *[''] * (len(seeds) + 2)])
    for place, (method, of_one) in enumerate(zip(methods, scores)):
        mean = f'{means[place]:{form}}'
        if len(of_one) > 1:
            mean += f' ({statistics.stdev(of_one.values()):{form}})'
        name = method['method']
        if place == 0 and method['parameters']:
            name += f' ({method["parameters"]:,} parameters)'
        against = scores[place - place % 2 if in_pairs else 0]
        rows.append(
            [
                name,
                f'**{mean}**' if means[place] == max(means) else mean,
                '' if against is of_one else _difference(of_one, against, form),
                *(f'{of_one[s]:{form}}' if s in of_one else '' for s in seeds),
                '' if method['added'] is None else f'{method["added"]:,}',
            ]
        )
    return markdown(rows)


def _difference(scores: dict, others: dict, form: str) -> str:
    values = [scores[seed] - others[seed] for seed in scores if seed in others]
    if not values:
        return ''
    error = ''
    if len(values) > 1:
        error = f' ± {statistics.stdev(values) / math.sqrt(len(values)):{form}}'
    return f'{statistics.fmean(values):+{form}}{error}'


def fill(page: Path) -> str:
    """Fill the tables of a page.

    Args:
        page (Path): The file.

    Returns:
        str: Its text with all tables as their logs have them.
    """

    def table(match: re.Match[str]) -> str:
        comparison = json.loads((page.parent / match[2]).read_text())
        lines = write_table(comparison, bool(match[3]))
        return '\n'.join([match[1], *lines, '', match[5]])

    return TABLE.sub(table, page.read_text())


def main() -> None:
    """Write or check all pages.

    Raises:
        SystemExit: With status 1 if a page differs from its logs under ``--check``.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true')
    check = parser.parse_args().check
    stale = []
    for page in sorted((REPOSITORY / 'docs').rglob('*.md')):
        text = fill(page)
        if text != page.read_text():
            stale.append(str(page.relative_to(REPOSITORY)))
            if not check:
                page.write_text(text)
    for name in stale:
        print(f'{name}: {"differs from its logs" if check else "written"}')
    sys.exit(bool(check and stale))


if __name__ == '__main__':
    main()
