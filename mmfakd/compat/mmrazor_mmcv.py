# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Let mmrazor 1.0 be imported beside an mmcv that came after it."""

from importlib import import_module
from types import ModuleType
from typing import Any

from mmfakd.version import parse_version

from .families import ONEDL
from .import_hook import Execute, around_import

# What mmrazor 1.0.0 accepts.
_NEWEST = '2.1.0'


def _execute(real: Execute, module: ModuleType) -> None:
    """Run mmrazor's `__init__`, which reads the version of mmcv once."""
    mmcv: Any = import_module('mmcv')
    version = mmcv.__version__
    (bounds,) = (r for r in ONEDL.requirements if r.imported == 'mmcv')
    # Versions that nobody has tested stay refused.
    if parse_version(version) <= parse_version(_NEWEST) or not bounds.accepts(version):
        real(module)
        return
    mmcv.__version__ = _NEWEST
    try:
        real(module)
    finally:
        mmcv.__version__ = version


def allow_mmrazor_with_newer_mmcv() -> None:
    """Make ``import mmrazor`` work with the mmcv of the onedl family.

    mmrazor 1.0.0, its last release, asserts that mmcv is not newer than 2.1.0, the last
    one of its day (as mmdet does, upstream thread
    https://github.com/open-mmlab/mmdetection/issues/12312). What it uses of mmcv is
    the same in onedl-mmcv 2.3. So its ``__init__`` is shown 2.1.0 while it runs, where
    mmcv is one that mmfakd is tested with. Nothing else changes.
    """
    around_import('mmrazor', _execute)
