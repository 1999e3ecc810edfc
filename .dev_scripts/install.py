# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Installs mmfakd with everything it needs, and prints the path of the Python to use.

Progress goes to standard error. Call it through `bash tools/install.sh`.

flavours of mmcv
  --lite        without compiled operators: enough for classification, nothing to
                compile. Where the full mmcv is already there, that serves as well.
  --full        with them, with mmdet and mmsegmentation: for detection, segmentation
                and the tests. The wheel comes from the cache, from OpenMMLab, or is
                built (about ten minutes).
  --force-lite  lite, and the full mmcv goes.

environment variables
  PYTHON        the Python that makes .venv
  MMFAKD_TORCH  the same as --torch
  MMFAKD_CACHE  where uv and built mmcv wheels are kept; by default mmfakd in
                XDG_CACHE_HOME or ~/.cache
  UV_...        settings of uv, which installs; without them those of pip count
  MMFAKD_MMCV_WHEELS
                a mirror of OpenMMLab's wheels, in place of
                https://download.openmmlab.com/mmcv/dist
  MAX_JOBS      how many files of mmcv to compile at a time
  FORCE_CUDA=1  build mmcv's operators for CUDA without a GPU in this machine, say on a
                login node; TORCH_CUDA_ARCH_LIST then names the GPUs, as in '8.0;9.0'
"""

import argparse
import contextlib
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from installer.common import ROOT, InstallError, locked, say
from installer.environment import Environment
from installer.installer import EXTRAS, TORCH_SETS, Installer
from installer.uv import Uv


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str], optional): Its words. Defaults to those of the process.

    Returns:
        argparse.Namespace: The options.
    """
    summary, _, details = str(__doc__).partition('\n\n')
    parser = argparse.ArgumentParser(
        prog='bash tools/install.sh',
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flavour = parser.add_mutually_exclusive_group()
    for name, text in (
        ('lite', 'mmcv without operators (the default)'),
        ('full', 'the full mmcv, mmdet and mmsegmentation'),
        ('force-lite', 'lite even where the full mmcv is installed'),
    ):
        flavour.add_argument(
            f'--{name}', dest='flavour', action='store_const', const=name, help=text
        )
    add = parser.add_argument
    add('--tests', action='store_true', help='what the tests need')
    add('--lint', action='store_true', help='the linters')
    add('--docs', action='store_true', help='what builds the site')
    add('--venv', type=Path, metavar='DIR', help='this environment, made if missing')
    versions = 'the set of tested versions; by default the one that is installed, else '
    versions += 'the first that exists for the Python. The newest is whatever is '
    versions += 'published today'
    named = os.environ.get('MMFAKD_TORCH') or None
    add('--torch', choices=TORCH_SETS, default=named, help=versions)
    parser.set_defaults(flavour='lite')
    args = parser.parse_args(argv)
    args.extras = [name for name in EXTRAS if getattr(args, name)]
    if args.torch not in (None, *TORCH_SETS):
        parser.error(f'MMFAKD_TORCH={args.torch}: choose from {", ".join(TORCH_SETS)}')
    return args


def find_python(uv: Uv, torch_set: Optional[str]) -> str:
    """Find a Python of a supported version: the one that runs this, or another.

    Args:
        uv (Uv): It looks for others.
        torch_set (str, optional): The set of versions that is asked for.

    Returns:
        str: Its path.

    Raises:
        InstallError: Where there is none.
    """
    wanted = []
    for name in [torch_set] if torch_set else ['2.11', '2.1']:
        low, high = TORCH_SETS[name]
        if low <= sys.version_info[:2] <= high:
            return sys.executable
        wanted.append('{}.{} to {}.{} (torch {})'.format(*low, *high, name))
        if not os.environ.get('PYTHON'):  # one that is named runs this
            request = '>={}.{},<{}.{}'.format(*low, high[0], high[1] + 1)
            with contextlib.suppress(InstallError):
                return uv('python', 'find', '--system', request, quiet=True).strip()
    found = '{} ({}.{})'.format(sys.executable, *sys.version_info)
    raise InstallError(
        f'No usable Python. Found: {found}. Wanted: {" or ".join(wanted)}. Install one '
        f'(say by {uv.command} python install 3.11), or name it: '
        'PYTHON=/path/to/python3.11 bash tools/install.sh'
    )


def make_environment(uv: Uv, prefix: Path, torch_set: Optional[str]) -> Environment:
    """Make a virtual environment, or take the one that is there.

    One whose Python does not run was cut short or has lost its base, and is made anew.

    Args:
        uv (Uv): It finds a Python and makes the environment.
        prefix (Path): Its folder.
        torch_set (str, optional): The set of versions that is asked for.

    Returns:
        Environment: The environment.

    Raises:
        InstallError: Where the folder holds something else, or no Python is found.
    """
    with contextlib.suppress(InstallError):
        return Environment(uv, prefix, own=True)
    filled = prefix.exists() and any(prefix.iterdir())
    if filled and not (prefix / 'pyvenv.cfg').exists():
        raise InstallError(
            f'{prefix} is not a virtual environment, and it is not empty. Name another '
            'folder.'
        )
    python = find_python(uv, torch_set)
    say(f'making {prefix} with {python}')
    uv('venv', '--quiet', '--clear', '--python', python, prefix)
    return Environment(uv, prefix, own=True)


def choose_environment(args: argparse.Namespace) -> Installer:
    """Choose where to install: the active environment where it fits, else our own.

    Args:
        args (argparse.Namespace): The options.

    Returns:
        Installer: What installs into it.
    """
    uv, default = Uv(), ROOT / '.venv'
    active = os.environ.get('VIRTUAL_ENV') or os.environ.get('CONDA_PREFIX')
    if active and not args.venv and Path(active).resolve() != default.resolve():
        try:
            installer = Installer(Environment(uv, Path(active), own=False), args)
            complete = installer.is_complete()
            reason = None if complete else installer.why_unfit(args.torch)
        except InstallError as error:
            reason = str(error)
        if reason is None:
            say(f'using the active environment {active}')
            return installer
        say(f'the active environment {active} does not fit: {reason}; using {default}')
    prefix = (args.venv or default).absolute()
    return Installer(make_environment(uv, prefix, args.torch), args)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Install, and print the path of the Python to use.

    Args:
        argv (Sequence[str], optional): The words of the command line. Defaults to
            those of the process.
    """
    args = parse_args(argv)
    prefix = str((args.venv or ROOT / '.venv').absolute())
    with locked(hashlib.sha256(prefix.encode()).hexdigest()[:16], prefix):
        installer = choose_environment(args)
        installer.run()
    print(installer.environment.executable)


if __name__ == '__main__':
    try:
        main()
    except InstallError as error:
        sys.exit(f'[install] {error}')
    except KeyboardInterrupt:
        message = '[install] interrupted; the same command again continues'
        print(message, file=sys.stderr)
        sys.exit(130)
