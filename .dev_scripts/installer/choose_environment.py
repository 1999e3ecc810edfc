# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which environment to install into: the active one where it fits, else our own."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

from .common import ROOT, InstallError, clean_environ, say
from .environment import Environment
from .versions import TORCH_SETS, read_requirements, release, satisfies

# From the first Python of this list that is there and fits, .venv is made.
PYTHONS = ('python3', 'python', 'python3.12', 'python3.11', 'python3.10', 'python3.9')


def why_unfit(environment: Environment, torch_set: Optional[str]) -> Optional[str]:
    """Find out why an active environment cannot be used.

    It fits when its Python, torch and torchvision are supported and nothing in it would
    have to change its version: we only ever add to an environment that is not ours.

    Args:
        environment (Environment): The active environment.
        torch_set (str, optional): The set of versions that is asked for.

    Returns:
        str | None: The reason, None where it fits.
    """
    if not any(environment.python in pythons for pythons in TORCH_SETS.values()):
        return 'its Python is {}.{}, not 3.9 to 3.12'.format(*environment.python)
    wanted = read_requirements('runtime.txt', 'det.txt', 'seg.txt', 'mminstall.txt')
    wanted['mmcv-lite'] = wanted['mmcv']
    dists = environment.dists
    for name in ('pip', 'torch', 'torchvision'):
        if name not in dists:
            return f'it has no {name}'
    for name, specifiers in wanted.items():
        if name in dists and not satisfies(dists[name], specifiers):
            bounds = ','.join(operator + bound for operator, bound in specifiers)
            return f'it has {name} {dists[name]}, not {bounds}'
    if torch_set and release(dists['torch'])[:2] != release(torch_set):
        return f'it has torch {dists["torch"]}, not {torch_set}'
    if release(dists['torch']) < (2, 3) and release(dists.get('numpy', '1')) >= (2,):
        return f'its torch {dists["torch"]} does not work with numpy 2'
    return None


def find_base_python(torch_set: Optional[str]) -> str:
    """Find a Python to make the environment from.

    Args:
        torch_set (str, optional): The set of versions that is asked for.

    Returns:
        str: Its command.

    Raises:
        InstallError: Where none has a supported version.
    """
    sets = [torch_set] if torch_set else list(TORCH_SETS)
    named = os.environ.get('PYTHON')
    code = 'import sys, venv, ensurepip; print(*sys.version_info[:2])'
    found: dict[str, tuple[int, int]] = {}
    for candidate in [named] if named else PYTHONS:
        command = [candidate, '-c', code]
        with contextlib.suppress(OSError):
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode == 0:
                major, minor = run.stdout.split()
                found[candidate] = (int(major), int(minor))
            elif 'ensurepip' in run.stderr or 'venv' in run.stderr:
                say(f'{candidate} has no venv (Debian: apt install python3-venv)')
    fits = (c for s in sets for c, python in found.items() if python in TORCH_SETS[s])
    if base := next(fits, None):
        return base
    seen = ', '.join('{} ({}.{})'.format(k, *v) for k, v in found.items()) or 'none'
    ranges = ' or '.join(
        '{}.{} to {}.{} (torch {})'.format(*TORCH_SETS[s][0], *TORCH_SETS[s][-1], s)
        for s in sets
    )
    raise InstallError(
        f'No usable Python. Found: {seen}. Wanted: {ranges}, with venv. Install one, '
        'or name it: PYTHON=/path/to/python3.11 bash tools/install.sh'
    )


def make_environment(prefix: Path, torch_set: Optional[str]) -> Environment:
    """Make a virtual environment, or take the one that is there.

    One whose Python or pip does not run was cut short or has lost its base, and is made
    anew.

    Args:
        prefix (Path): Its folder.
        torch_set (str, optional): The set of versions that is asked for.

    Returns:
        Environment: The environment.

    Raises:
        InstallError: Where the folder holds something else, or no Python is found.
    """
    if (prefix / 'bin' / 'python').exists():
        with contextlib.suppress(InstallError):
            environment = Environment(prefix, own=True)
            if 'pip' in environment.dists:
                return environment
        say(f'{prefix} does not work')
    filled = prefix.exists() and any(prefix.iterdir())
    if filled and not (prefix / 'pyvenv.cfg').exists():
        raise InstallError(
            f'{prefix} is not a virtual environment, and it is not empty. Name another '
            'folder.'
        )
    base = find_base_python(torch_set)
    say(f'making {prefix} with {base}')
    command = [base, '-m', 'venv', '--clear', str(prefix)]
    if subprocess.run(command, env=clean_environ(), stdout=sys.stderr).returncode:
        raise InstallError(f'{" ".join(command)} failed, the lines above say why.')
    return Environment(prefix, own=True)


def choose_environment(venv: Optional[Path], torch_set: Optional[str]) -> Environment:
    """Choose the environment to install into.

    Args:
        venv (Path, optional): The folder that the user names.
        torch_set (str, optional): The set of versions that is asked for.

    Returns:
        Environment: The environment.
    """
    if venv:
        return make_environment(venv.absolute(), torch_set)
    default = ROOT / '.venv'
    active = os.environ.get('VIRTUAL_ENV') or os.environ.get('CONDA_PREFIX')
    if active and Path(active).resolve() != default.resolve():
        try:
            environment = Environment(Path(active), own=False)
            reason = why_unfit(environment, torch_set)
        except InstallError as error:
            reason = str(error)
        if reason is None:
            say(f'using the active environment {active}')
            return environment
        say(f'the active environment {active} does not fit: {reason}; using {default}')
    return make_environment(default, torch_set)
