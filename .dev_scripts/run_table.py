# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Run a table of trainings: methods by seeds, over hours, whatever interrupts them.

    python .dev_scripts/run_table.py .dev_scripts/studies/step_one_bccd.yml --jobs 2

A run that is done is skipped, one that was interrupted goes on where it stood, so the
same command is given again after any break. Runs start in the order of the file, all
methods of one seed before the next seed.
Each gets one thread and low priority. When no run is left, `mmfakd compare` writes
figures as JSON, from which result pages take their tables.

The file:

    config: ...                 # of all runs that have none of their own
    options: [train_dataloader.num_workers=0]       # --cfg-options of all runs
    seeds: [0, 1]
    teacher: {config: ..., options: [...]}          # one run, before all others
    runs:
      student alone: {config: ...}
      FAM-KD: {options: [model.distiller.loss_weight=2]}
    compare: [--json, docs/en/results/logs/NAME.json]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

COMMAND = [sys.executable, '-m', 'mmfakd']


@dataclass
class Run:
    """One training.

    Args:
        name (str): Of the method.
        config (str): Its config.
        options (list[str]): Its ``--cfg-options``.
        seed (int): Its seed.
        folder (Path): Its work dir.
    """

    name: str
    config: str
    options: list[str]
    seed: int
    folder: Path

    @property
    def done(self) -> Path:
        """Path: the file that says that the run has ended."""
        return self.folder / 'done'

    def command(self) -> list[str]:
        """Write the command that starts the run or goes on with it.

        Returns:
            list[str]: The words.
        """
        words = [*COMMAND, 'train', self.config, '--seed', str(self.seed)]
        words += ['--work-dir', str(self.folder), '--resume']
        return words + (['--cfg-options', *self.options] if self.options else [])

    def start(self) -> bool:
        """Run it to its end, if that has not been done.

        Returns:
            bool: Whether it is done.
        """
        if self.done.exists():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        print(f'{self.name}, seed {self.seed}: {self.folder}', flush=True)
        with open(self.folder / 'output.txt', 'a') as output:
            status = subprocess.run(
                self.command(),
                env=dict(os.environ, OMP_NUM_THREADS='1'),
                preexec_fn=lambda: os.nice(5),
                stdout=output,
                stderr=subprocess.STDOUT,
            ).returncode
        if status:
            print(f'{self.folder}: exit status {status}, see output.txt', flush=True)
        else:
            self.done.touch()
        return not status


def read_table(path: Path, work_dir: Path) -> tuple[list[Run], list[Run], list[str]]:
    """Read a table of runs.

    Args:
        path (Path): The file.
        work_dir (Path): Folder for the work dirs of all runs.

    Returns:
        tuple: The teacher's run, or none; all others; the words of the comparison.
    """
    table: dict[str, Any] = yaml.safe_load(path.read_text())
    known = {'config', 'options', 'seeds', 'teacher', 'runs', 'compare'}
    if set(table) - known:
        raise ValueError(f'{path}: unknown {sorted(set(table) - known)}; {known}.')

    def run(name: str, entry: dict[str, Any], seed: int) -> Run:
        folder = re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')
        return Run(
            name,
            str(entry.get('config', table.get('config'))),
            [*table.get('options', []), *entry.get('options', [])],
            seed,
            work_dir / f'{folder}_seed{seed}',
        )

    first = [run('teacher', table['teacher'], 0)] if 'teacher' in table else []
    runs = [
        run(name, entry or {}, seed)
        for seed in table['seeds']
        for name, entry in table['runs'].items()
    ]
    methods = [
        f'{name}={",".join(str(run.folder) for run in runs if run.name == name)}'
        for name in table['runs']
    ]
    teacher = [word for run in first for word in ('--teacher', str(run.folder))]
    return first, runs, [*methods, *teacher, *table.get('compare', [])]


def main() -> None:
    """Run a table.

    Raises:
        SystemExit: With status 1 if a run failed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('table', type=Path)
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/TABLE')
    parser.add_argument('--dry-run', action='store_true', help='print the commands')
    args = parser.parse_args()
    work_dir = args.work_dir or Path('work_dirs') / args.table.stem
    first, runs, comparison = read_table(args.table, work_dir)
    if args.dry_run:
        for run in [*first, *runs]:
            print(*run.command())
        print(*COMMAND, 'compare', *comparison)
        return
    if not all(run.start() for run in first):
        sys.exit(1)
    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(pool.map(Run.start, runs))
    if not all(done):
        sys.exit(1)
    subprocess.run([*COMMAND, 'compare', *comparison], check=True)


if __name__ == '__main__':
    main()
