# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One Python environment, looked at and changed from outside."""

import collections
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from .common import InstallError, clean_environ, run_watched, say
from .versions import release

NOTE = 'mmfakd-install.json'
# Runs in the environment: what is installed there.
PROBE = """
import importlib.metadata, json, sys, sysconfig
dists, source = {}, None
for dist in importlib.metadata.distributions():
    name = (dist.metadata['Name'] or '').lower().replace('_', '-')
    if name and name not in dists:
        dists[name] = dist.metadata['Version']
        source = dist.read_text('direct_url.json') if name == 'mmfakd' else source
print(json.dumps(dict(
    python=list(sys.version_info[:2]), site=sysconfig.get_path('purelib'),
    include=sysconfig.get_path('include'), dists=dists, source=source)))
"""
# Runs in the environment: imports what the arguments name; the last word it prints is
# the one that fails.
VERIFY = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    importlib.import_module(name)
"""


class Environment:
    """One Python environment, looked at and changed from outside.

    Args:
        prefix (Path): Its folder.
        own (bool): Whether it is ours alone (``.venv``, ``--venv``), so that installed
            versions may be changed; else they are kept and only what lacks is added.

    Raises:
        InstallError: Where its Python does not run.
    """

    def __init__(self, prefix: Path, own: bool) -> None:
        self.prefix = prefix
        self.own = own
        self.executable = prefix / 'bin' / 'python'
        self.refresh()

    def refresh(self) -> None:
        """Look again what is installed."""
        state = json.loads(self.output('-c', PROBE))
        self.python: tuple[int, int] = tuple(state['python'])
        self.site = Path(state['site'])
        self.include = Path(state['include'])
        self.dists: dict[str, str] = state['dists']
        self.source: Optional[str] = state['source']

    def _run(self, *args: str) -> str:
        return subprocess.run(
            [str(self.executable), *args],
            env=clean_environ(),
            cwd='/',  # what lies in the working directory is not installed
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def output(self, *args: str) -> str:
        """Run its Python.

        Args:
            *args (str): The words behind ``python``.

        Returns:
            str: What it prints.

        Raises:
            InstallError: Where it fails.
        """
        try:
            return self._run(*args)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, 'stderr', None) or error
            raise InstallError(f'{self.executable} does not run: {detail}') from error

    def pip(self, *args: object) -> None:
        """Run pip in it, with a line now and then from long downloads.

        Args:
            *args (object): The words behind ``pip``.

        Raises:
            InstallError: Where pip fails; its last lines are printed before.
        """
        command = [str(self.executable), '-m', 'pip', '--no-input', *map(str, args)]
        if args[0] == 'install' and release(self.dists.get('pip', '0')) >= (24, 1):
            command += ['--progress-bar', 'raw']
        tail: collections.deque[str] = collections.deque(maxlen=40)
        name, last = '', time.monotonic()

        def watch(line: str) -> None:
            nonlocal name, last
            progress = re.match(r'Progress (\d+) of (\d+)', line)
            if not progress:
                tail.append(line)
            if match := re.match(r'\s+Downloading (\S+?)-\d', line):
                name = match.group(1).rpartition('/')[2]
            elif line.startswith('Installing collected packages'):
                say(f'unpacking {line.count(",") + 1} packages')
            elif progress and time.monotonic() - last >= 5:
                done, total = (int(size) / 1e6 for size in progress.groups())
                if total >= 20:
                    say(f'loading {name}: {done:.0f} of {total:.0f} MB')
                    last = time.monotonic()

        environ = clean_environ(PIP_DISABLE_PIP_VERSION_CHECK='1')
        if run_watched(command, environ, watch):
            sys.stderr.writelines(tail)
            raise InstallError(
                f'pip {args[0]} failed, the lines above say why. What is installed '
                'stays: the same command again continues from here.'
            )

    def first_failing_import(self, modules: Sequence[str]) -> Optional[tuple[str, str]]:
        """Import modules in it.

        Args:
            modules (Sequence[str]): Their names.

        Returns:
            tuple[str, str] | None: The first that fails, and its traceback.
        """
        try:
            self._run('-c', VERIFY, *modules)
        except subprocess.CalledProcessError as error:
            tried = [word for word in error.stdout.split() if word in modules]
            return [modules[0], *tried][-1], error.stderr.strip()
        return None

    def read_note(self) -> dict[str, Any]:
        """Read what the last complete installation left.

        Returns:
            dict[str, Any]: The note; empty where there is none.
        """
        try:
            return json.loads((self.prefix / NOTE).read_text())
        except (OSError, ValueError):
            return {}

    def write_note(self, note: dict[str, Any]) -> None:
        """Leave a note for the next call.

        Args:
            note (dict[str, Any]): The note.
        """
        (self.prefix / NOTE).write_text(json.dumps(note, indent=2) + '\n')
