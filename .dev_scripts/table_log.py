# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The log of a table of runs, which outlives their work dirs."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from table_run import COMMAND, TableRun, start

from mmfakd.analysis.compare_runs import extend
from mmfakd.analysis.earlier_comparison import read_comparison
from mmfakd.checkpoints.atomic import whole_file

FIT = Path(__file__).with_name('study_fit.py')


class TableLog:
    """What is known of the runs of a table, in a file.

    Args:
        path (Path, optional): The file; None keeps none.
        methods (Sequence[str]): Names of the methods, that which others are compared
            with first.
        fit (bool): Whether to measure how well connectors fit.
        teacher (TableRun, optional): The teacher's run.
    """

    def __init__(
        self,
        path: Path | None,
        methods: Sequence[str],
        fit: bool = False,
        teacher: TableRun | None = None,
    ) -> None:
        self.path, self.methods = path, list(methods)
        self.fit, self.teacher = fit, teacher

    def knows(self, run: TableRun) -> bool:
        """Tell whether a run is in it.

        Args:
            run (TableRun): The run.

        Returns:
            bool: Whether it is.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If the file is no log.
        """
        return any(
            found['seed'] == run.seed
            # One of other settings is not this run.
            and ('made' not in found or run.is_made_by(found['made']))
            for found in self._runs().get(run.name, [])
        )

    def check(self, run: TableRun) -> None:
        """Check that it has no run of other settings in the place of one.

        Args:
            run (TableRun): The run.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it has, or is no log.
        """
        for found in self._runs().get(run.name, []):
            made = found.get('made')
            if found['seed'] == run.seed and made and not run.is_made_by(made):
                raise ValueError(
                    f'{self.path} has {run.name}, seed {found["seed"]}, by '
                    f'{" ".join(made)}; the table has {" ".join(run.made)} now. Give '
                    'the row another name, or take out its runs: --drop '
                    f'{shlex.quote(run.name)}'
                )

    def drop(self, methods: Sequence[str]) -> None:
        """Take the runs of methods out: of all of them, or of none.

        Args:
            methods (Sequence[str]): Their names.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If it lacks such a method, or is no log.
        """
        known = [*self._runs()]
        for method in methods:
            if method not in known:
                raise ValueError(f'{self.path} has no {method!r}: {known}.')
        with _locked(self.path) as path:
            log = json.loads(path.read_text())
            left = [each for each in log['methods'] if each['method'] not in methods]
            if not left:
                path.unlink()
                return
            base = log['baseline']
            base = left[0]['method'] if base in methods else base
            gone = tuple(f'{method} ' for method in methods)
            for subjects in log.get('remarks', {}).values():
                subjects[:] = [s for s in subjects if not s.startswith(gone)]
            none = dict(metric=log['metric'], methods=[], teacher=None, remarks={})
            log = extend({**log, 'methods': left}, none, base)
            with whole_file(path) as part:
                Path(part).write_text(json.dumps(log, indent=1) + '\n')

    def add(self, run: TableRun) -> None:
        """Add a run that is done.

        The file changes once, when all is known of the run.

        Args:
            run (TableRun): The run.

        Raises:
            CalledProcessError: If the run cannot be compared with the others.
            OSError: If the file cannot be written.
            ValueError: If the file is no log, or the run is left out of it.
        """
        if self.path is None:
            return
        with _locked(self.path), tempfile.TemporaryDirectory() as folder:
            known, copy = self._runs(), Path(folder, 'log.json')
            if self.path.exists():
                shutil.copyfile(self.path, copy)
            words = ['--trust', f'--add-to={copy}']
            if self.teacher is not None:
                words.append(f'--teacher={self.teacher.folder}')
            first = self.methods[0]
            if first == run.name or first in known:
                words.append(f'--baseline={first}')
            # Names may begin like an option.
            words += ['--', f'{run.name}={run.folder}']
            start([*COMMAND, 'compare', *words])
            self._complete(copy, run)
            if not TableLog(copy, self.methods).knows(run):
                raise ValueError(
                    'it is not in the log, as other runs of this row are longer. Take '
                    f'those out: --drop {shlex.quote(run.name)}'
                )
            if self.fit:
                start([sys.executable, str(FIT), str(copy)])
            with whole_file(self.path) as part:
                shutil.copyfile(copy, part)

    def _complete(self, copy: Path, run: TableRun) -> None:
        """Put the methods into order, and say by what a run was made."""
        log = json.loads(copy.read_text())
        log['methods'].sort(key=lambda method: self._place(method['method']))
        for method in log['methods']:
            for found in method['runs']:
                added = (method['method'], found['seed'], found['work_dir'])
                if added == (run.name, run.seed, str(run.folder)):
                    # An older one of this folder, which got farther, was kept.
                    found.setdefault('made', run.made)
        copy.write_text(json.dumps(log, indent=1) + '\n')

    def _place(self, method: str) -> int:
        """Place of a method in the table; those that are no longer there come last."""
        known = method in self.methods
        return self.methods.index(method) if known else len(self.methods)

    def _runs(self) -> dict[str, list[dict[str, Any]]]:
        """Method -> its runs."""
        log = None if self.path is None else read_comparison(str(self.path))
        methods = [] if log is None else log['methods']
        return {method['method']: method['runs'] for method in methods}


@contextmanager
def _locked(path: Path | None) -> Iterator[Path]:
    """Keep other threads and processes from the log meanwhile."""
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    # The log itself is replaced, and with it what would be locked.
    with open(f'{path}.lock', 'a') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path
