# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The versions that mmfakd is tried with, each in an environment of its own.

    pip install nox
    nox                          # all of them
    nox -s newest -- --no-tests  # one of them, the digits alone
    nox -s oldest -- --lite      # without compiling mmcv's operators

A session whose Python is not installed is skipped, and nox says which it needs. With
pyenv, `PYENV_VERSION=3.9:3.11:3.12:3.13 nox` shows it all of them.
The other words behind ``--`` are pytest's. What came of a session is written to
``docs/en/versions/``, and into the table of ``docs/en/versions.md``.
"""

import sys
from typing import NamedTuple

import nox

nox.needs_version = '>=2024.3.2'
nox.options.default_venv_backend = 'venv'
nox.options.reuse_existing_virtualenvs = True


class Stack(NamedTuple):
    """Versions to try.

    Args:
        python (str): The Python.
        torch (str): The set of versions, see ``tools/install.sh --torch``.
        flavour (str): Whether mmcv is to have its compiled operators.
        first (tuple[str, ...]): What to install before all else.
    """

    python: str
    torch: str
    flavour: str
    first: tuple[str, ...] = ()


STACKS = {
    'oldest': Stack('3.9', '2.1', '--full'),
    'tested': Stack('3.11', '2.11', '--full'),
    'newest': Stack('3.12', 'newest', '--lite'),
    'python3.13': Stack('3.13', 'newest', '--lite'),
    # The installer keeps the family that it finds.
    'onedl': Stack(
        '3.11', 'newest', '--full', ('onedl-mmengine<0.11', 'setuptools>=82')
    ),
}
FLAVOURS = ('--lite', '--full')


def prove(session: nox.Session, name: str, stack: Stack) -> None:
    """Install a stack, then try it.

    Args:
        session (nox.Session): The session.
        name (str): The name of its log.
        stack (Stack): The versions.
    """
    asked = [word for word in session.posargs if word in FLAVOURS]
    words = [word for word in session.posargs if word not in FLAVOURS]
    flavour = (asked or [stack.flavour])[-1]
    script = ('python', '.dev_scripts/prove_versions.py', name)
    if stack.first:
        session.install(*stack.first)
    install = ('bash', 'tools/install.sh', '--venv', session.virtualenv.location)
    options = ('--torch', stack.torch, flavour, '--tests')
    try:
        session.run(*install, *options, external=True)
        session.run(*script, *words)
    finally:
        session.run(sys.executable, '.dev_scripts/versions_table.py', external=True)


for name, stack in STACKS.items():
    nox.session(
        lambda session, name=name, stack=stack: prove(session, name, stack),
        name=name,
        python=stack.python,
    )
