# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One training of a table of runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from mmfakd.checkpoints.atomic import whole_file
from mmfakd.compat.parent_death import end_with_parent

COMMAND = [sys.executable, '-m', 'mmfakd']


@dataclass
class TableRun:
    """One training.

    Args:
        name (str): Of the method.
        config (str): Its config.
        options (list[str]): Its ``--cfg-options``; ``{first}`` is the folder of that.
        seed (int): Its seed.
        folder (Path): Its work dir.
        first (TableRun, optional): One that has to end before it starts.
        teacher (TableRun, optional): The teacher of its table.
    """

    name: str
    config: str
    options: list[str]
    seed: int
    folder: Path
    first: TableRun | None = None
    teacher: TableRun | None = None

    @property
    def done(self) -> Path:
        """Path: the file that says that the run has ended."""
        return self.folder / 'done'

    @property
    def made(self) -> list[str]:
        """list[str]: its config and options, and those of the runs that it needs."""
        return self._words()

    def _words(self, all_taught: bool = False) -> list[str]:
        """The same, or as if the teacher of a table taught all of its runs."""
        words = [self.config, *self.options]
        if self.first is not None:
            words.append(f'after {" ".join(self.first._words(all_taught))}')
        if self.teacher is not None and (all_taught or self._names(self.teacher)):
            words.append(f'taught by {" ".join(self.teacher.made)}')
        return words

    def _names(self, other: TableRun) -> bool:
        """Whether an option names the folder of another run."""
        # Without the place: what is in the log is known under any `--work-dir`.
        name = re.compile(rf'\b{re.escape(other.folder.name)}\b')
        return any(map(name.search, self.options))

    @property
    def _made_file(self) -> Path:
        """The file that says by what the folder was made."""
        return self.folder / 'made.json'

    def is_made_by(self, words: Any) -> bool:
        """Tell whether what is known of a run can be said of this one.

        Args:
            words (Any): What :attr:`made` was when it was made.

        Returns:
            bool: Whether it can.
        """
        # Older versions did not write of the runs that it needs, or of the teacher in
        # those, too, that have none.
        bare = [self.config, *self.options]
        if self.first is not None and isinstance(words, list):
            # They wrote the folder of the run before it, wherever it was.
            place = re.compile(rf'[^=\s]*\b{re.escape(self.first.folder.name)}\b')
            words = [place.sub('{first}', str(word)) for word in words]
        return words in (self.made, self._words(all_taught=True), bare)

    def command(self) -> list[str]:
        """Write the command that starts the run or goes on with it.

        Returns:
            list[str]: The words.
        """
        words = [*COMMAND, 'train', self.config, '--seed', str(self.seed)]
        words += ['--work-dir', str(self.folder), '--resume']
        first = '' if self.first is None else str(self.first.folder)
        options = [text.replace('{first}', first) for text in self.options]
        return words + (['--cfg-options', *options] if options else [])

    def check(self) -> None:
        """Check that what its folder holds was made by its config and options.

        Raises:
            OSError: If its folder cannot be read.
            ValueError: If the folder holds a run of others, or does not say of which.
        """
        if self.first is not None:
            self.first.check()
        # Runs of older versions did not write it.
        if not self._made_file.exists():
            return
        try:
            found = json.loads(self._made_file.read_text())
            words = ' '.join(found)
        # Whatever a file can be that is no list of words.
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{self._made_file}: expected a list of words, the config and the '
                f'options by which its folder was made ({error}). Remove the file if '
                'they are those of the table; else move the folder away.'
            ) from error
        if not self.is_made_by(found):
            raise ValueError(
                f'{self.folder} holds a run of {words}; {self.name}, seed '
                f'{self.seed}, is {" ".join(self.made)} now. Give the method another '
                'name in the table, or move the folder away.'
            )

    def start(self) -> bool:
        """Run it to its end, if that has not been done.

        Returns:
            bool: Whether it is done.

        Raises:
            OSError: If its folder cannot be written.
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
        output = self.folder / 'output.txt'
        status = self._train(output)
        if status:
            # The last line tells of the error.
            lines = output.read_text(errors='replace').strip().splitlines()
            last = ''.join(lines[-1:])
            text = f'{self.folder}: exit status {status}, see output.txt. {last}'
            print(text.rstrip(), flush=True)
        else:
            self.done.touch()
        return not status

    def _train(self, path: Path) -> int:
        """Train, with a file for the output; gives the exit status."""
        with open(path, 'a') as output:
            process = start(
                self.command(), check=False, stdout=output, stderr=subprocess.STDOUT
            )
        return process.returncode


def start(words: list[str], check: bool = True, **options: Any) -> CompletedProcess:
    """Run a command to its end, with one thread and low priority.

    Args:
        words (list[str]): The command.
        check (bool): Whether it has to succeed.
        **options: Further arguments of :func:`subprocess.run`.

    Returns:
        CompletedProcess: What has run.

    Raises:
        CalledProcessError: If it has to succeed, and does not.
    """
    env = dict(os.environ, OMP_NUM_THREADS='1')
    return subprocess.run(words, check=check, env=env, preexec_fn=_behave, **options)


def _behave() -> None:
    """Leave the machine to others, and do not go on beside the table's next start."""
    os.nice(5)
    end_with_parent(signal.SIGTERM)
