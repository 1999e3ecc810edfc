# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Run a table of trainings: methods by seeds, over hours, whatever interrupts them.

    python .dev_scripts/run_table.py .dev_scripts/studies/bccd_gfl.yml --jobs 2

A run that is done is skipped, one that was interrupted goes on where it stood, so the
same command is given again after any break. Runs start in the order of the file, all
methods of one seed before the next seed. Each gets one thread and low priority, and
ends when the script is killed. One that fails is told, and the others go on.

As a run ends, `mmfakd compare --add-to` adds it to the log, from which result pages
take their tables. What is in the log is done, on any machine: committed, it is all that
has to be kept of a run. With `fit`, `study_fit.py` adds to it how well connectors fit.
Several tables may have one log. A run of another config or other options, its own or
its `first`, is another run: the row gets another name, or its folder is moved away and
`--drop ROW` takes its runs out of the log. So is one under another teacher, if its
options or those of its `first` name the teacher's folder. What the files hold, of a
config, of mmfakd or of weights, is not compared: after a change to them give new names.

The file:

    config: ...                 # of all runs that have none of their own
    options: [train_dataloader.num_workers=0]       # --cfg-options of all runs
    seeds: [0, 1]
    teacher: {config: ..., options: [...]}          # one run, before all others
    runs:
      student alone: {config: ...}
      FAM-KD: {options: [model.distiller.loss_weight=2], seeds: [0]}    # fewer of them
      FAM-KD, connectors first:
        first: {options: [model.student_trainable=False]}   # a run before this one
        options: ['load_from={first}/epoch_1.pth']          # its work dir
    log: docs/en/results/logs/NAME.json
    fit: false
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import yaml
from table_log import TableLog
from table_run import TableRun


def read_table(
    path: Path, work_dir: Path
) -> tuple[list[TableRun], list[TableRun], TableLog]:
    """Read a table of runs.

    Args:
        path (Path): The file.
        work_dir (Path): Folder for the work dirs of all runs.

    Returns:
        tuple: The teacher's run, or none; all others; their log.

    Raises:
        ValueError: For a key that means nothing or is there twice, a run without a
            config, and two runs of one folder.
    """
    with path.open(encoding='utf-8') as lines:
        table: dict[str, Any] = yaml.load(lines, _Loader)
    _check_keys(path, table, 'config options seeds teacher runs log fit')
    teacher: TableRun | None = None

    def run(name: str, entry: dict[str, Any], seed: int, suffix: str = '') -> TableRun:
        _check_keys(path, entry, 'config options first seeds')
        folder = re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')
        config = entry.get('config', table.get('config'))
        if not isinstance(config, str):
            raise ValueError(f'{path}: {name!r} has no config, nor has the table.')
        first = None
        if 'first' in entry:
            before = {'config': config, **entry['first']}
            first = run(name, before, seed, '_first')
        options = [*table.get('options', []), *entry.get('options', [])]
        place = work_dir / f'{folder}{suffix}_seed{seed}'
        return TableRun(name, config, options, seed, place, first, teacher)

    if 'teacher' in table:
        teacher = run('teacher', table['teacher'], 0)
    runs = [
        run(name, entry or {}, seed)
        for seed in table['seeds']
        for name, entry in table['runs'].items()
        if seed in (entry or {}).get('seeds', table['seeds'])
    ]
    before = [] if teacher is None else [teacher]
    _check_folders(path, [*before, *runs])
    file = Path(table['log']) if 'log' in table else None
    log = TableLog(file, list(table['runs']), table.get('fit', False), teacher)
    return before, runs, log


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice: the last would take the place of all."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f'{twice} twice,{node.start_mark}')
        return super().construct_mapping(node, deep)


def _check_keys(path: Path, entry: dict[str, Any], known: str) -> None:
    """Raise for a key that means nothing."""
    unknown = sorted(set(entry) - set(known.split()))
    if unknown:
        raise ValueError(f'{path}: unknown {unknown}; known are {known}.')


def _check_folders(path: Path, runs: Sequence[TableRun]) -> None:
    """Raise for two runs that would write to one folder."""
    owners: dict[Path, TableRun] = {}
    for run in [*runs, *(run.first for run in runs if run.first is not None)]:
        other = owners.setdefault(run.folder, run)
        if other is not run:
            raise ValueError(
                f'{path}: {other.name!r} and {run.name!r}, seed {run.seed}, would have '
                f'one folder, {run.folder}: of names it takes letters and digits '
                'alone. Give one of them another name.'
            )


def finish(run: TableRun, log: TableLog | None = None) -> bool:
    """Run to the end what is not in the log, and add it.

    What goes wrong is printed: there are other runs to go on with.

    Args:
        run (TableRun): The run.
        log (TableLog, optional): The log; None for a run that is not in it.

    Returns:
        bool: Whether it is done.
    """
    try:
        done = run.start()
        if done and log is not None:
            log.add(run)
    except (OSError, ValueError, CalledProcessError) as error:
        print(f'{run.name}, seed {run.seed}: {error}', flush=True)
        return False
    return done


def main() -> None:
    """Run a table.

    Raises:
        SystemExit: With status 1 if a run failed.
        ValueError: If the table is wrong, its log damaged, or a folder holds another
            run.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('table', type=Path)
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/TABLE')
    drop = 'take the runs of a row out of the log first; may be given several times'
    parser.add_argument('--drop', metavar='ROW', action='append', default=[], help=drop)
    parser.add_argument('--dry-run', action='store_true', help='print the commands')
    args = parser.parse_args()
    # For the modules that configs of studies import.
    paths = [os.environ.get('PYTHONPATH'), str(Path(__file__).resolve().parent)]
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    work_dir = args.work_dir or Path('work_dirs') / args.table.stem
    first, runs, log = read_table(args.table, work_dir)
    left = [run for run in runs if run.name in args.drop or not log.knows(run)]
    if args.dry_run:
        before = [run.first for run in left if run.first is not None]
        for run in [*(first if left else []), *before, *left]:
            print(shlex.join(run.command()))
        return
    # Before hours of the others.
    for run in [*first, *left]:
        run.check()
    for run in left:
        if run.name not in args.drop:
            log.check(run)
    if args.drop:
        log.drop(args.drop)
    if left and not all(finish(run) for run in first):
        sys.exit(1)
    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(pool.map(lambda run: finish(run, log), left))
    if not all(done):
        sys.exit(1)


if __name__ == '__main__':
    main()
