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
  MMFAKD_CACHE  where built mmcv wheels are kept; by default mmfakd in XDG_CACHE_HOME
                or ~/.cache
  MMFAKD_MMCV_WHEELS
                a mirror of OpenMMLab's wheels, in place of
                https://download.openmmlab.com/mmcv/dist
  MAX_JOBS      how many files of mmcv to compile at a time
  FORCE_CUDA=1  build mmcv's operators for CUDA without a GPU in this machine, say on a
                login node; TORCH_CUDA_ARCH_LIST then names the GPUs, as in '8.0;9.0'
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from installer.choose_environment import choose_environment
from installer.common import ROOT, InstallError, locked
from installer.installer import Installer
from installer.versions import TORCH_SETS


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
    add('--venv', type=Path, metavar='DIR', help='this environment, made if missing')
    versions = 'the set of tested versions; by default the one that is installed, else '
    versions += 'the first that exists for the Python'
    named = os.environ.get('MMFAKD_TORCH') or None
    add('--torch', choices=TORCH_SETS, default=named, help=versions)
    parser.set_defaults(flavour='lite')
    args = parser.parse_args(argv)
    if args.torch not in (None, *TORCH_SETS):
        parser.error(f'MMFAKD_TORCH={args.torch}: choose from {", ".join(TORCH_SETS)}')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Install, and print the path of the Python to use.

    Args:
        argv (Sequence[str], optional): The words of the command line. Defaults to
            those of the process.
    """
    args = parse_args(argv)
    prefix = (args.venv or ROOT / '.venv').absolute()
    extras = [name for name in ('tests', 'lint') if getattr(args, name)]
    name = hashlib.sha256(str(prefix).encode()).hexdigest()[:16]
    with locked(name, prefix.name):
        environment = choose_environment(args.venv, args.torch)
        Installer(environment, args.flavour, extras, args.torch).run()
    print(environment.executable)


if __name__ == '__main__':
    try:
        main()
    except InstallError as error:
        sys.exit(f'[install] {error}')
    except KeyboardInterrupt:
        message = '[install] interrupted; the same command again continues'
        print(message, file=sys.stderr)
        sys.exit(130)
