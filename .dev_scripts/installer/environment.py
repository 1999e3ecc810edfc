# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One Python environment, looked at and changed from outside."""

import contextlib
import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path
from typing import Optional

from .common import InstallError, clean_environ, release, say
from .uv import Uv

# Runs in the environment: imports what the arguments name; the last word it prints is
# the one that fails.
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    importlib.import_module(name)
"""


class Environment:
    """One Python environment, looked at and changed from outside.

    Args:
        uv (Uv): It makes the changes.
        prefix (Path): The folder of the environment.
        own (bool): Whether it is ours alone (``.venv``, ``--venv``), so that installed
            versions may be changed; else they are kept and only what lacks is added.

    Raises:
        InstallError: Where it has no Python.
    """

    def __init__(self, uv: Uv, prefix: Path, own: bool) -> None:
        self.uv = uv
        self.prefix = prefix
        self.own = own
        self.executable = prefix / 'bin' / 'python'
        site = next(prefix.glob('lib/python3.*/site-packages'), None)
        if site is None or not self.executable.exists():
            raise InstallError(f'{prefix} has no Python that works')
        self.site = site
        self.python = release(site.parent.name[len('python') :])

    @property
    def dists(self) -> dict[str, str]:
        """The installed packages: versions by names."""
        named = {}
        for dist in importlib.metadata.distributions(path=[str(self.site)]):
            # The rest of an interrupted removal has no metadata, which some versions of
            # importlib.metadata raise for, and others have None for.
            with contextlib.suppress(FileNotFoundError, TypeError):
                if name := dist.metadata['Name']:
                    named[re.sub(r'[-_.]+', '-', name).lower()] = dist.version
        return named

    def output(self, *args: str) -> str:
        """Run its Python and return what it prints."""
        return subprocess.run(
            [str(self.executable), *args],
            env=clean_environ(),
            cwd='/',  # what lies in the working directory is not installed
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def first_failing_import(self, *modules: str) -> Optional[tuple[str, str]]:
        """Import modules; return the first that fails, and its traceback."""
        try:
            self.output('-c', IMPORT, *modules)
        except subprocess.CalledProcessError as error:
            tried = [word for word in error.stdout.split() if word in modules]
            return [modules[0], *tried][-1], error.stderr.strip()
        return None

    def pip(self, command: str, *args: object, quiet: bool = False) -> None:
        """Run ``uv pip`` on it."""
        where = ('--python', self.executable, *(('--quiet',) if quiet else ()))
        self.uv('pip', command, *where, *args, quiet=quiet)

    def remove(self, *names: str) -> None:
        """Uninstall flavours of mmcv, with whatever is left in their common folder."""
        say(f'removing {" and ".join(names)}')
        self.pip('uninstall', *names)
        shutil.rmtree(self.site / 'mmcv', ignore_errors=True)

    def remove_fragments(self) -> None:
        """Remove the traces of installations that were cut short.

        RECORD is written last; without it a package only looks installed.
        """
        for folder in self.site.glob('*.dist-info'):
            if not (folder / 'RECORD').exists():
                say(f'{folder.name} is incomplete and will be installed again')
                shutil.rmtree(folder)
