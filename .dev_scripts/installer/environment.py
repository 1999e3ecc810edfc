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

from .dev_scripts.installer.common import (
    InstallError,
    clean_environ,
    release,
    run_watched,
    say,
)

NOTE = 'mmfakd-install.json'
# Runs in the environment: what is installed there.
PROBE = """
import importlib.metadata as metadata, json, sys, sysconfig
dists = {}
for dist in metadata.distributions():
    data = dist.metadata
    if data['Name']:
        dists.setdefault(data['Name'].lower().replace('_', '-'), data['Version'])
try:
    source = metadata.distribution('mmfakd').read_text('direct_url.json')
except metadata.PackageNotFoundError:
    source = None
print(json.dumps(dict(
    python=list(sys.version_info[:2]), site=sysconfig.get_path('purelib'),
    include=sysconfig.get_path('include'), dists=dists, source=source)))
"""
# Runs in the environment: imports what the arguments name, tells the first that fails.
VERIFY = """
import importlib, sys, traceback
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException:
        print(name)
        traceback.print_exc()
        sys.exit(1)
"""


class Environment:
    """One Python environment, looked at and changed from outside.

    Args:
        prefix: Its folder.
        own: Whether it is ours alone (``.venv``, ``--venv``), so that installed
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
        """Looks again what is installed."""
        state = json.loads(self.output('-c', PROBE))
        self.python: tuple[int, int] = tuple(state['python'])
        self.site = Path(state['site'])
        self.include = Path(state['include'])
        self.dists: dict[str, str] = state['dists']
        self.source: Optional[str] = state['source']

    def output(self, *args: str) -> str:
        """Runs its Python and returns what that prints."""
        try:
            return subprocess.run(
                [str(self.executable), *args],
                env=clean_environ(),
                cwd='/',  # what lies in the working directory is not installed
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, 'stderr', None) or error
            raise InstallError(f'{self.executable} does not run: {detail}') from error

    def pip(self, *args: object) -> None:
        """Runs pip in it, with a line now and then from long downloads.

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
        """The first of the modules that cannot be imported, with its traceback."""
        result = subprocess.run(
            [str(self.executable), '-c', VERIFY, *modules],
            env=clean_environ(),
            cwd='/',  # the repository itself must not stand in for the installation
            capture_output=True,
            text=True,
        )
        if result.returncode == 0:
            return None
        lines = result.stdout.split()
        return (lines[-1] if lines else modules[0]), result.stderr.strip()

    def read_note(self) -> dict[str, Any]:
        """What the last complete installation left, else an empty dict."""
        try:
            return json.loads((self.prefix / NOTE).read_text())
        except (OSError, ValueError):
            return {}

    def write_note(self, note: dict[str, Any]) -> None:
        """Leaves a note for the next call."""
        (self.prefix / NOTE).write_text(json.dumps(note, indent=2) + '\n')
