# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write the numbers of pages from the logs that they come from.

    python .dev_scripts/result_tables.py [--check]

In the READMEs and in pages under docs/, what stands between

    <!-- table of logs/NAME.json -->
    <!-- end of the table -->

is the table of that log, which `mmfakd compare --json` wrote: mean and sample
standard deviation of the last scores, and differences to the first method, paired by
seed. Paths are relative to the page. With `logs/NAME.json, in pairs` the second
method is compared with the first, the fourth with the third, and so on; with `in
short` single seeds are left out.

`<!-- costs of costs/NAME.json -->`, with the same end, is what `mmfakd benchmark
--suite step -o` measured (``cost_tables.py``); `<!-- decisions -->` puts gains and
costs of all methods side by side (``decision_table.py``), `<!-- gains -->` one method
and the student alone on all sets (``gains_table.py``). `<!-- launches of
costs/NAME.json, added -->` is what the suite of that name counted
(``launch_table.py``), `<!-- suite of costs/NAME.json, SUITE -->` the table that any
suite of the benchmark prints. `<!-- study of logs/NAME.json -->` is what `study_fit.py`
has added to a comparison (``study_table.py``). `<!-- figure: logs/NAME.json; last;
METHOD -->..<!-- end -->` is one number within a sentence (``log_figures.py``).

With `--check` nothing is written, and the exit status says whether a page differs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from comparison_table import write_table
from cost_tables import write_costs
from decision_table import write_decisions
from gains_table import write_gains
from launch_table import write_launches
from log_figures import write_figure
from study_table import write_study

from mmfakd.analysis.benchmark.report import format_machine, format_suite

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = re.compile(
    r'(<!-- (?P<what>table|costs|decisions|gains|launches|study|suite)'
    r'(?: of (?P<log>\S+\.json))?(?:, (?P<how>[a-z ]+))? -->\n)'
    r'(.*?)(<!-- end of the table -->)',
    re.S,
)
FIGURE = re.compile(
    r'(<!-- figure: (?P<log>\S+\.json); (?P<words>[^>]+?) -->)([^\n]*?)(<!-- end -->)'
)
TABLES: dict[str, Callable[[Path, str], list[str]]] = {
    'table': lambda log, how: write_table(json.loads(log.read_text()), how),
    'costs': lambda log, how: write_costs(log),
    'decisions': lambda log, how: write_decisions(),
    'gains': lambda log, how: write_gains(),
    'launches': write_launches,
    'study': lambda log, how: write_study(json.loads(log.read_text())),
    'suite': lambda log, name: write_suite(log, name),
}


def write_suite(log: Path, name: str) -> list[str]:
    """Write the table of a suite of the benchmark.

    Args:
        log (Path): What the benchmark wrote.
        name (str): The suite.

    Returns:
        list[str]: The table, its notes, and what it was measured on.
    """
    report = json.loads(log.read_text())
    lines = format_suite(name, report['suites'][name]).splitlines()
    # The page has a heading of its own.
    return [*lines[2:], '', format_machine(report)]


def pages() -> Iterator[Path]:
    """Find the pages that may hold numbers.

    Yields:
        Path: A file in Markdown.
    """
    yield REPOSITORY / 'README.md'
    yield from sorted((REPOSITORY / 'configs').rglob('README.md'))
    for page in sorted((REPOSITORY / 'docs').rglob('*.md')):
        if 'generated' not in page.parts:
            yield page


def fill(page: Path) -> str:
    """Fill the tables of a page, and its single figures.

    Args:
        page (Path): The file.

    Returns:
        str: Its text with all numbers as their logs have them.

    Raises:
        ValueError: If a single figure begins a line.
    """

    def table(match: re.Match[str]) -> str:
        log = page.parent / (match['log'] or '')
        lines = TABLES[match['what']](log, match['how'] or '')
        return '\n'.join([match[1], *lines, '', match.groups()[-1]])

    def figure(match: re.Match[str]) -> str:
        if match.start() and match.string[match.start() - 1] == '\n':
            raise ValueError(
                f'{page}: {match[1]} begins a line, and so would end its paragraph: '
                'put it behind a word.'
            )
        log = json.loads((page.parent / match['log']).read_text())
        return match[1] + write_figure(log, match['words']) + match.groups()[-1]

    return FIGURE.sub(figure, TABLE.sub(table, page.read_text()))


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
    for page in pages():
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
