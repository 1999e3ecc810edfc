# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Advice on missing libraries that names those of the family that is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mmfakd.messages import documentation

from .families import COMMON, STOCK, families_in
from .family import installable, pip_install
from .versions import installed_versions

_WITH_OPERATORS = {'mmdet', 'mmseg'}


def how_to_install(*modules: str) -> str:
    """Say how libraries come into this environment.

    Args:
        *modules (str): What Python imports, such as ``'mmseg'``. What is of no family
            is called as its module is.

    Returns:
        str: A command of pip, in backticks, and where it is missing what pip does not
        bring.
    """
    family = (families_in(installed_versions()) or [STOCK])[0]
    libraries = {r.imported: installable(r) for r in (*COMMON, *family.requirements)}
    # A distribution of the module's name may be a stranger's.
    libraries = {**_packages_of_mmengine(), **libraries}
    command = pip_install(*(libraries.get(module, module) for module in modules))
    if _WITH_OPERATORS.isdisjoint(modules) or _has_operators():
        return command
    page = documentation('installation.md')
    return f'{command}, and mmcv with its compiled operators, see {page}'


def _packages_of_mmengine() -> dict[str, str]:
    """Module -> distribution, of the libraries that MMEngine knows."""
    try:
        from mmengine.config.utils import MODULE2PACKAGE
    except ImportError:
        return {}
    return MODULE2PACKAGE


def _has_operators() -> bool:
    """Whether the installed mmcv has its compiled operators; it is not imported."""
    spec = find_spec('mmcv')
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    return any(folder.glob('_ext.*'))
