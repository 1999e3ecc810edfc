# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What every part of the installer uses."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'
START = time.monotonic()


class InstallError(Exception):
    """Something that the user has to settle; the message says what and how."""


def say(text: str) -> None:
    """Print a line of progress to standard error.

    Args:
        text (str): The line.
    """
    print(f'[install {time.monotonic() - START:4.0f} s] {text}', file=sys.stderr)


def cache_dir() -> Path:
    """Find the folder that survives the environment.

    Returns:
        Path: The folder of built wheels and locks.
    """
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(os.environ.get('MMFAKD_CACHE') or f'{base}/mmfakd').expanduser()


@contextlib.contextmanager
def locked(name: str, what: str) -> Iterator[None]:
    """Hold a lock among processes; say so where it has to be waited for.

    Args:
        name (str): Name of the lock.
        what (str): What it is for, in words.
    """
    path = cache_dir() / 'locks' / f'{name}.lock'
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f'another installation is busy with {what}; waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clean_environ(**extra: str) -> dict[str, str]:
    """Copy the environment variables without what would lead pip astray.

    Args:
        **extra (str): Further variables.

    Returns:
        dict[str, str]: The variables for a child process.
    """
    astray = ('PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_USER')
    environ = {k: v for k, v in os.environ.items() if k not in astray}
    return {**environ, **extra}


def run_watched(
    command: list[str], environ: dict[str, str], watch: Callable[[str], None]
) -> int:
    """Run a command and hand each line of its output on.

    Args:
        command (list[str]): The command.
        environ (dict[str, str]): Its environment variables.
        watch (Callable): Called with each line.

    Returns:
        int: The exit status.
    """
    with subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors='replace',
    ) as process:
        for line in process.stdout or ():
            watch(line)
    return process.returncode
