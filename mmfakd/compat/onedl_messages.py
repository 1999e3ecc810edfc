# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Keep what the onedl family prints on import out of the output of commands."""

import sys
from contextlib import redirect_stdout
from io import StringIO
from types import ModuleType

from .import_hook import Execute, around_import

_PACKAGES = ('mmpretrain', 'mmdet', 'mmseg')
_MESSAGE = 'Could not import OneDL'


def _execute(real: Execute, module: ModuleType) -> None:
    """Run a module and pass on what it prints, but for the one message."""
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            real(module)
    finally:
        lines = printed.getvalue().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if _MESSAGE not in line)


def silence_absent_onedl() -> None:
    """Let libraries of the onedl family be imported without a line on standard output.

    Their data sets for its vendor's own platform need a package that hardly anybody
    has. That it is not there is printed, on every import, as a message for debugging
    that has no logger (mmpretrain 1.3.6, mmdet 3.5.1, mmseg 1.4.2). So a program that
    reads what ``mmfakd`` prints would read that. Everything else is printed as ever.
    """
    for package in _PACKAGES:
        around_import(f'{package}.datasets', _execute)
        around_import(f'{package}.datasets.transforms', _execute)
