# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What every part of the installer uses."""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'
# The Python versions each constraints file is for, requirements/constraints-torch*.txt.
TORCH_SETS = {'2.11': ((3, 10), (3, 12)), '2.1': ((3, 9), (3, 11))}
START = time.monotonic()


class InstallError(Exception):
    """Something that the user has to settle; the message says what and how."""


def say(text: str) -> None:
    """Prints a line of progress to standard error."""
    print(f'[install {time.monotonic() - START:4.0f} s] {text}', file=sys.stderr)


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: ``'2.11.0+cu130'`` -> ``(2, 11, 0)``."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def parse_requirement(line: str) -> Optional[tuple[str, list[tuple[str, str]]]]:
    """A requirements line as name and ``(operator, version)`` pairs.

    Comments, options and empty lines give None. Markers are left out.
    """
    line = line.split('#')[0].split(';')[0].strip()
    match = re.match(r'([A-Za-z0-9._-]+)\s*(.*)', line)
    if not match or line.startswith('-'):
        return None
    name = re.sub(r'[-_.]+', '-', match.group(1)).lower()
    return name, re.findall(r'(==|>=|<)\s*([^,\s]+)', match.group(2))


def read_requirements(*names: str) -> dict[str, list[tuple[str, str]]]:
    """The requirements of files in ``requirements/``, by normalised name."""
    parsed = (
        parse_requirement(line)
        for name in names
        for line in (REQUIREMENTS / name).read_text().splitlines()
    )
    return dict(item for item in parsed if item)


def satisfies(version: str, specifiers: Sequence[tuple[str, str]]) -> bool:
    """Whether a version lies within ``==``, ``>=`` and ``<`` bounds."""
    found = release(version)
    for operator, wanted in specifiers:
        bound = release(wanted)
        width = max(len(found), len(bound))
        left, right = ((v + (0,) * width)[:width] for v in (found, bound))
        holds = {'==': left == right, '>=': left >= right, '<': left < right}
        if not holds[operator]:
            return False
    return True


def cache_dir() -> Path:
    """The folder that survives the environment: built wheels and locks."""
    if os.environ.get('MMFAKD_CACHE'):
        return Path(os.environ['MMFAKD_CACHE']).expanduser()
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser() / 'mmfakd'


@contextlib.contextmanager
def locked(name: str, what: str) -> Iterator[None]:
    """Holds a lock among processes; says so where it has to wait for it."""
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
    """The environment for child processes, without what would lead pip astray."""
    astray = ('PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_USER')
    environ = {k: v for k, v in os.environ.items() if k not in astray}
    return {**environ, **extra}


def run_watched(
    command: list[str], environ: dict[str, str], watch: Callable[[str], None]
) -> int:
    """Runs a command, hands each line of its output on, and returns its status."""
    with subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            watch(line)
    return process.returncode
