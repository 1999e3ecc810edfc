# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Run a table of trainings: methods by seeds, over hours, whatever interrupts them.

    python .dev_scripts/run_table.py .dev_scripts/studies/bccd_gfl.yml --jobs 2

A run that is done is skipped, one that was interrupted goes on where it stood, so the
same command is given again after any break. Runs start in the order of the file, all
methods of one seed before the next seed. Each gets one thread and low priority.

As a run ends, `mmfakd compare --add-to` adds it to the log, from which result pages
take their tables. What is in the log is done, on any machine: committed, it is all that
has to be kept of a run. With `fit`, `study_fit.py` adds to it how well connectors fit.

The file:

    config: ...                 # of all runs that have none of their own
    options: [train_dataloader.num_workers=0]       # --cfg-options of all runs
    seeds: [0, 1]
    teacher: {config: ..., options: [...]}          # one run, before all others
    runs:
      student alone: {config: ...}
      FAM-KD: {options: [model.distiller.loss_weight=2]}
      FAM-KD, connectors first:
        first: {options: [model.student_trainable=False]}   # a run before this one
        options: ['load_from={first}/epoch_1.pth']          # its work dir
    log: docs/en/results/logs/NAME.json
    fit: false
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmfakd.checkpoints.atomic import whole_file

COMMAND = [sys.executable, '-m', 'mmfakd']
FIT = Path(__file__).with_name('study_fit.py')


@dataclass
class Run:
    """One training.

    Args:
        name (str): Of the method.
        config (str): Its config.
        options (list[str]): Its ``--cfg-options``.
        seed (int): Its seed.
        folder (Path): Its work dir.
        first (Run, optional): One that has to end before it starts.
    """

    name: str
    config: str
    options: list[str]
    seed: int
    folder: Path
    first: Run | None = None

    @property
    def done(self) -> Path:
        """Path: the file that says that the run has ended."""
        return self.folder / 'done'

    @property
    def made(self) -> list[str]:
        """list[str]: the config and its options, which tell it from other runs."""
        return [self.config, *self.options]

    @property
    def _made_file(self) -> Path:
        """The file that says by what the folder was made."""
        return self.folder / 'made.json'

    def command(self) -> list[str]:
        """Write the command that starts the run or goes on with it.

        Returns:
            list[str]: The words.
        """
        words = [*COMMAND, 'train', self.config, '--seed', str(self.seed)]
        words += ['--work-dir', str(self.folder), '--resume']
        return words + (['--cfg-options', *self.options] if self.options else [])

    def check(self) -> None:
        """Check that what its folder holds was made by its config and options.

        Raises:
            ValueError: If the folder holds a run of others.
        """
        if self.first is not None:
            self.first.check()
        # Runs of older versions did not write it.
        if not self._made_file.exists():
            return
        found = json.loads(self._made_file.read_text())
        if found != self.made:
            raise ValueError(
                f'{self.folder} holds a run of {" ".join(found)}; {self.name}, seed '
                f'{self.seed}, is {" ".join(self.made)} now. Give the method another '
                'name in the table, or move the folder away.'
            )

    def start(self) -> bool:
        """Run it to its end, if that has not been done.

        Returns:
            bool: Whether it is done.

        Raises:
            ValueError: If its folder holds a run of another config or other options.
        """
        self.check()
        if self.done.exists():
            return True
        if self.first is not None and not self.first.start():
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._made_file) as part:
            Path(part).write_text(json.dumps(self.made) + '\n')
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


class Log:
    """What is known of the runs of a table, in a file.

    Args:
        path (Path, optional): The file; None keeps none.
        methods (Sequence[str]): Names of the methods, that which others are compared
            with first.
        fit (bool): Whether to measure how well connectors fit.
        teacher (Sequence[str]): Words that tell ``mmfakd compare`` of the teacher.
    """

    def __init__(
        self,
        path: Path | None,
        methods: Sequence[str],
        fit: bool = False,
        teacher: Sequence[str] = (),
    ) -> None:
        self.path, self.methods = path, list(methods)
        self.fit, self.teacher = fit, teacher
        self._lock = threading.Lock()

    def knows(self, run: Run) -> bool:
        """Tell whether a run is in it.

        Args:
            run (Run): The run.

        Returns:
            bool: Whether it is.
        """
        for found in self._runs().get(run.name, []):
            # One of other settings is not this run.
            if found['seed'] == run.seed and found.get('made', run.made) == run.made:
                return True
        return False

    def add(self, run: Run) -> None:
        """Add a run that is done.

        Args:
            run (Run): The run.
        """
        if self.path is None:
            return
        words = [f'{run.name}={run.folder}', *self.teacher, '--trust']
        words += ['--add-to', str(self.path)]
        with self._lock:
            first = self.methods[0]
            if first == run.name or first in self._runs():
                words += ['--baseline', first]
            subprocess.run([*COMMAND, 'compare', *words], check=True)
            log = json.loads(self.path.read_text())
            log['methods'].sort(key=lambda method: self._place(method['method']))
            for method in log['methods']:
                for found in method['runs']:
                    added = (method['method'], found['seed'], found['work_dir'])
                    if added == (run.name, run.seed, str(run.folder)):
                        # An older one of this folder, which got farther, was kept.
                        found.setdefault('made', run.made)
            with whole_file(self.path) as part:
                Path(part).write_text(json.dumps(log, indent=1) + '\n')
            if self.fit:
                subprocess.run([sys.executable, FIT, self.path], check=True)

    def _place(self, method: str) -> int:
        """Place of a method in the table; those that are no longer there come last."""
        known = method in self.methods
        return self.methods.index(method) if known else len(self.methods)

    def _runs(self) -> dict[str, list[dict[str, Any]]]:
        """Method -> its runs."""
        if self.path is None or not self.path.exists():
            return {}
        methods = json.loads(self.path.read_text())['methods']
        return {method['method']: method['runs'] for method in methods}


def read_table(path: Path, work_dir: Path) -> tuple[list[Run], list[Run], Log]:
    """Read a table of runs.

    Args:
        path (Path): The file.
        work_dir (Path): Folder for the work dirs of all runs.

    Returns:
        tuple: The teacher's run, or none; all others; their log.

    Raises:
        ValueError: For a key that means nothing, and for two runs of one folder.
    """
    table: dict[str, Any] = yaml.safe_load(path.read_text())
    _check_keys(path, table, 'config options seeds teacher runs log fit')

    def run(name: str, entry: dict[str, Any], seed: int, suffix: str = '') -> Run:
        _check_keys(path, entry, 'config options first')
        folder = re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')
        config = str(entry.get('config', table.get('config')))
        first = None
        if 'first' in entry:
            before = {'config': config, **entry['first']}
            first = run(name, before, seed, '_first')
        options = [*table.get('options', []), *entry.get('options', [])]
        if first is not None:
            options = [text.replace('{first}', str(first.folder)) for text in options]
        place = work_dir / f'{folder}{suffix}_seed{seed}'
        return Run(name, config, options, seed, place, first)

    first = [run('teacher', table['teacher'], 0)] if 'teacher' in table else []
    runs = [
        run(name, entry or {}, seed)
        for seed in table['seeds']
        for name, entry in table['runs'].items()
    ]
    _check_folders(path, [*first, *runs])
    teacher = [word for run in first for word in ('--teacher', str(run.folder))]
    log = Path(table['log']) if 'log' in table else None
    return first, runs, Log(log, list(table['runs']), table.get('fit', False), teacher)


def _check_keys(path: Path, entry: dict[str, Any], known: str) -> None:
    """Raise for a key that means nothing."""
    unknown = sorted(set(entry) - set(known.split()))
    if unknown:
        raise ValueError(f'{path}: unknown {unknown}; known are {known}.')


def _check_folders(path: Path, runs: Sequence[Run]) -> None:
    """Raise for two runs that would write to one folder."""
    owners: dict[Path, Run] = {}
    for run in [*runs, *(run.first for run in runs if run.first is not None)]:
        other = owners.setdefault(run.folder, run)
        if other is not run:
            raise ValueError(
                f'{path}: {other.name!r} and {run.name!r}, seed {run.seed}, would have '
                f'one folder, {run.folder}: of names it takes letters and digits '
                'alone. Give one of them another name.'
            )


def finish(run: Run, log: Log) -> bool:
    """Run to the end what is not in the log, and add it.

    Args:
        run (Run): The run.
        log (Log): The log.

    Returns:
        bool: Whether it is done.
    """
    done = run.start()
    if done:
        log.add(run)
    return done


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
    # For the modules that configs of studies import.
    paths = [os.environ.get('PYTHONPATH'), str(Path(__file__).resolve().parent)]
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    work_dir = args.work_dir or Path('work_dirs') / args.table.stem
    first, runs, log = read_table(args.table, work_dir)
    left = [run for run in runs if not log.knows(run)]
    if args.dry_run:
        before = [run.first for run in left if run.first is not None]
        for run in [*(first if left else []), *before, *left]:
            print(*run.command())
        return
    # Before hours of the others.
    for run in [*first, *left] if left else []:
        run.check()
    if left and not all(run.start() for run in first):
        sys.exit(1)
    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(pool.map(lambda run: finish(run, log), left))
    if not all(done):
        sys.exit(1)


if __name__ == '__main__':
    main()
