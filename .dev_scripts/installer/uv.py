# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""uv, in an environment of its own, set up as pip is."""

import ast
import functools
import hashlib
import re
import sys
from pathlib import Path

from .common import InstallError, cache_dir, clean_environ, locked, run, say

REQUIREMENT = 'uv>=0.13,<0.14'
# uv does not read pip's files: settings of pip -> variables of uv.
SETTINGS = {
    'index-url': 'UV_DEFAULT_INDEX',
    'extra-index-url': 'UV_INDEX',
    'find-links': 'UV_FIND_LINKS',
    'constraint': 'UV_CONSTRAINT',
    'trusted-host': 'UV_INSECURE_HOST',
    'keyring-provider': 'UV_KEYRING_PROVIDER',
    'cert': 'SSL_CERT_FILE',
    'client-cert': 'SSL_CLIENT_CERT',
    'proxy': 'HTTPS_PROXY',
    'default-timeout': 'UV_HTTP_TIMEOUT',
    'timeout': 'UV_HTTP_TIMEOUT',
}


class Uv:
    """uv, in an environment of its own, set up as pip is.

    Attributes:
        command (Path): uv.
        python (Path): The Python beside it, which has pip.
    """

    def __init__(self) -> None:
        self.home = cache_dir() / 'uv'
        self.command = self.home / 'bin' / 'uv'
        self.python = self.home / 'bin' / 'python'

    @functools.cached_property
    def settings(self) -> dict[str, list[str]]:
        """Settings of pip, from its files and variables: values by names."""
        listed = self._python('-m', 'pip', 'config', 'list').splitlines()
        found: dict[str, list[str]] = {}
        # As pip has it, the later section counts.
        for section in ('global', 'install', ':env:'):
            for key, _, value in (line.partition('=') for line in listed):
                name = key.rpartition('.')[2]
                if key == f'{section}.{name}':
                    found[name] = ast.literal_eval(value).split()
        return found

    @functools.cached_property
    def environ(self) -> dict[str, str]:
        """The variables it runs with; where none says otherwise, pip's settings."""
        # All indexes count alike and the system's certificates hold, as with pip.
        settings = {'UV_INDEX_STRATEGY': 'unsafe-best-match', 'UV_SYSTEM_CERTS': '1'}
        for name, variable in SETTINGS.items():
            if name in self.settings:
                separator = ',' if name == 'find-links' else ' '
                settings[variable] = separator.join(self.settings[name])
        return {**settings, **clean_environ()}

    def _python(self, *args: object) -> str:
        return run(self.python, *args, env=clean_environ())

    def prepare(self) -> None:
        """Install uv where it lacks."""
        mark = self.home / 'complete'
        with locked('uv', 'uv'):
            whole = mark.exists() and mark.read_text() == REQUIREMENT
            if whole and self.python.exists():
                return
            say('getting uv, which installs the rest')
            run(sys.executable, '-m', 'venv', '--clear', self.home)
            self._python('-m', 'pip', '--no-input', 'install', '--quiet', REQUIREMENT)
            mark.write_text(REQUIREMENT)

    def __call__(self, *args: object, quiet: bool = False) -> str:
        """Run it, see :func:`run`.

        Args:
            *args (object): The words behind ``uv``.
            quiet (bool): Whether to print nothing. Defaults to False.

        Returns:
            str: What it writes to standard output.
        """
        self.prepare()
        alone = self.settings.get('no-index') in (['1'], ['true'], ['yes'], ['on'])
        resolves = args[:2] in (('pip', 'install'), ('pip', 'compile'))
        more = ('--no-index',) if alone and resolves else ()
        return run(self.command, *args, *more, env=self.environ, quiet=quiet)

    def download(self, package: str, folder: Path) -> Path:
        """Fetch a source archive: uv knows where it is, but hands none out.

        Args:
            package (str): Its name and version, as ``'mmcv==2.1.0'``.
            folder (Path): Where to put it.

        Returns:
            Path: The archive.

        Raises:
            InstallError: Where it is not the one that the index announces.
        """
        folder.mkdir(parents=True, exist_ok=True)
        asked = folder / 'asked.in'
        asked.write_text(package)
        options = ('--quiet', '--no-deps', '--no-header', '--format', 'pylock.toml')
        source = ('--no-binary', package.split('==')[0], asked)
        lock = self('pip', 'compile', *options, *source)
        found = re.search(
            r'sdist = .*?"(?P<url>[^"]+)".*sha256 = "(?P<hash>\w+)"', lock
        )
        if found is None:
            raise InstallError(f'The index has no source archive of {package}.')
        archive = folder / found['url'].rpartition('/')[2]
        code = 'import sys, urllib.request as r; r.urlretrieve(*sys.argv[1:])'
        run(sys.executable, '-c', code, found['url'], archive, env=self.environ)
        if hashlib.sha256(archive.read_bytes()).hexdigest() != found['hash']:
            raise InstallError(f'{found["url"]} was not loaded whole, or was changed.')
        return archive
