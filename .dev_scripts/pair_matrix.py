# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Try the pairs of stock models of model_pairs.yml and write docs/en/model_pairs.md.

    python .dev_scripts/pair_matrix.py                     # what has not passed yet
    python .dev_scripts/pair_matrix.py swin deit --again

Each pair is one test in a process of its own, with limits on its time and memory. Its
result is kept, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_pairs import PAIRS, Pair

from mmfakd.messages import markdown

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = 'work_dirs/pair_matrix'
PAGE = REPOSITORY / 'docs' / 'en' / 'model_pairs.md'


@dataclass
class Result:
    """What came of one pair.

    Args:
        passed (bool, optional): None if it has not been tried.
        seconds (float): How long the test took.
        problem (str): The first line of the error.
        facts (dict[str, str]): What the test has recorded.
    """

    passed: bool | None = None
    seconds: float = 0.0
    problem: str = ''
    facts: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.passed is None:
            return 'not tried'
        return 'passes' if self.passed else f'fails: {self.problem}'


def read_result(path: Path) -> Result:
    """Read the JUnit report of one pair.

    Args:
        path (Path): The file; it may be missing.

    Returns:
        Result: What came of the pair.
    """
    if not path.exists():
        return Result()
    case = ElementTree.parse(path).find('.//testcase')
    if case is None:
        return Result(False, problem='no such test')
    if not case.get('name'):
        # The test was interrupted: pytest then counts neither it nor a failure.
        return Result()
    facts = {p.get('name', ''): p.get('value', '') for p in case.iter('property')}
    failures = [e for e in case if e.tag in ('failure', 'error', 'skipped')]
    problem = failures[0].get('message', '') if failures else ''
    first_line = next(iter(problem.splitlines()), '')
    return Result(not failures, float(case.get('time', 0)), first_line, facts)


def try_pair(name: str, path: Path, timeout: float, memory: float) -> Result:
    """Run the test of one pair in a process of its own.

    Args:
        name (str): The pair's name.
        path (Path): Where its JUnit report goes.
        timeout (float): Seconds that it may take.
        memory (float): Gigabytes that it may ask for.

    Returns:
        Result: What came of the pair. Without a report, none is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    test = f'tests/test_pairs.py::test_pair[{name}]'
    options = ['-q', '-m', 'matrix or not matrix', '-p', 'no:cacheprovider']
    limit = int(memory * 2**30)
    try:
        process = subprocess.run(
            [sys.executable, '-m', 'pytest', test, *options, f'--junitxml={path}'],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
    except subprocess.TimeoutExpired:
        return Result(False, timeout, f'took longer than {timeout:g} s')
    if not path.exists():
        lines = (process.stdout + process.stderr).strip().splitlines() or ['']
        return Result(False, 0, f'ended with {process.returncode}: {lines[-1]}')
    return read_result(path)


def format_page(results: dict[Pair, Result]) -> str:
    """Write the page of all pairs.

    Args:
        results (dict[Pair, Result]): What came of each pair, in order.

    Returns:
        str: Markdown.
    """
    # What stands above the tables is written by hand.
    page = [PAGE.read_text().partition('\n## ')[0]]
    for library in dict.fromkeys(pair.library for pair in results):
        found = {p: r for p, r in results.items() if p.library == library}
        passed = sum(result.passed is True for result in found.values())
        rows: list[list[str]] = [
            ['Student', 'Teacher', 'Method', 'Input', 'Levels', 'Added', 'Result']
        ]
        for pair, result in found.items():
            added = f'{int(result.facts.get("added", 0)) / 1e6:.2f} M'
            rows.append(
                [
                    *(_short(name) for name in (pair.student, pair.teacher)),
                    pair.method,
                    'x'.join(map(str, pair.size)),
                    result.facts.get('levels', ''),
                    added if result.passed else '',
                    str(result),
                ]
            )
        count = f'{passed} of {len(found)} pairs pass.'
        page += [f'## {library}', '', count, '', *markdown(rows), '']
    return '\n'.join(page)


def _short(config: str) -> str:
    path = Path(config.rpartition('::')[2])
    return f'{path.parent.name}/{path.name}' if path.is_absolute() else str(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Try the pairs and write the page.

    Args:
        argv (Sequence[str], optional): The arguments; None takes the process's own.

    Returns:
        int: The number of pairs that have failed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('names', nargs='*', help='parts of names of pairs; none for all')
    add('--again', action='store_true', help='also the pairs that have passed')
    add('--timeout', type=float, default=600, help='seconds for a pair')
    add('--memory', type=float, default=24, help='gigabytes for a pair')
    add('--results', default=RESULTS, help='folder of the results')
    add('--page', default=PAGE, help='the page to write')
    add('--write-only', action='store_true', help='write the page from past results')
    args = parser.parse_args(argv)
    folder = Path(args.results)
    results = {pair: read_result(folder / f'{pair.name}.xml') for pair in PAIRS}
    chosen = [
        p for p in PAIRS if not args.names or any(n in p.name for n in args.names)
    ]
    for number, pair in enumerate(chosen, 1):
        path = folder / f'{pair.name}.xml'
        if not args.write_only and (args.again or not results[pair].passed):
            results[pair] = try_pair(pair.name, path, args.timeout, args.memory)
        result = results[pair]
        print(
            f'{number}/{len(chosen)} {pair.name}: {result} ({result.seconds:.0f} s)',
            flush=True,
        )
    Path(args.page).write_text(format_page(results))
    failed = sum(results[pair].passed is False for pair in chosen)
    print(f'{sum(bool(results[p].passed) for p in chosen)} pass, {failed} fail')
    return failed


if __name__ == '__main__':
    sys.exit(1 if main() else 0)
