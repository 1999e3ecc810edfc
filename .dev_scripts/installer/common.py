# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What every part of the installer uses."""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[2]
START = time.monotonic()


class InstallError(Exception):
    """Something that the user has to settle; the message says what and how."""


def say(text: str) -> None:
    """Print a line of progress to standard error."""
    print(f'[install {time.monotonic() - START:4.0f} s] {text}', file=sys.stderr)


def release(version: str) -> tuple[int, ...]:
    """Read the numbers of a version: (2, 11, 0) of ``'2.11.0+cu130'``."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def cache_dir() -> Path:
    """Find the folder of uv, built wheels and locks, which outlives environments."""
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(os.environ.get('MMFAKD_CACHE') or f'{base}/mmfakd').expanduser()


@contextlib.contextmanager
def locked(name: str, what: str) -> Iterator[None]:
    """Hold a lock among processes; say so where it has to be waited for."""
    path = cache_dir() / 'locks' / f'{name}.lock'
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f'another installation is busy with {what}; waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clean_environ() -> dict[str, str]:
    """Copy the environment variables without what would lead an installer astray.

    Nor is bytecode left out: every command would compile anew all that it imports,
    which takes three times as long as importing it.
    """
    astray = {'PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_USER'}
    astray.add('PYTHONDONTWRITEBYTECODE')
    return {k: v for k, v in os.environ.items() if k not in astray}


def run(
    *words: object, env: Optional[dict[str, str]] = None, quiet: bool = False
) -> str:
    """Run a command.

    Args:
        *words (object): Its words.
        env (dict[str, str], optional): Its environment variables.
        quiet (bool): Whether to keep what it writes to standard error for the message
            of the error. Defaults to False.

    Returns:
        str: What it writes to standard output.

    Raises:
        InstallError: Where it fails.
    """
    result = subprocess.run(
        [str(word) for word in words],
        env=env or clean_environ(),
        cwd=ROOT,  # what lies in the user's folder is about something else
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
    )
    if result.returncode == 0:
        return result.stdout
    if quiet:
        raise InstallError(result.stderr.strip())
    raise InstallError(
        f'{" ".join(map(str, words[:4]))} ... failed, the lines above say why. What is '
        'installed stays: the same command again continues from here.'
    )
