# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where MMEngine looks for the configs of other libraries, and what it installs."""

from __future__ import annotations

from functools import wraps
from importlib import metadata
from typing import Callable

from .families import ONEDL, STOCK
from .how_to_install import how_to_install
from .rebind import rebind


def name_config_packages() -> None:
    """Let ``mmseg::...`` mean the distribution of the family that is installed.

    MMEngine, the maintained line's 0.10.12 too, takes ``mmseg`` from the distribution
    ``mmsegmentation``. Where that of the maintained line is installed, it finds none,
    and ``mmengine.hub`` installs the other family's over it.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    maintained = any(_is_distribution(library.name) for library in ONEDL.requirements)
    for library in (ONEDL if maintained else STOCK).requirements:
        if library.imported in MODULE2PACKAGE:
            MODULE2PACKAGE[library.imported] = library.name


def _is_distribution(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _refusing(install_package: Callable[[str], None]) -> Callable[[str], None]:
    """Wrap MMEngine's ``install_package`` so that it says what it would do."""

    @wraps(install_package)
    def wrapper(package: str) -> None:
        from mmengine.config.utils import MODULE2PACKAGE
        from mmengine.utils import is_installed

        if is_installed(package):
            return
        modules = {name: module for module, name in MODULE2PACKAGE.items()}
        module = modules.get(package, package)
        raise ModuleNotFoundError(
            f'A config of {module} was asked for by name, and {package} is not '
            'installed. MMEngine would run pip now, which may replace the libraries '
            f'that are here; mmfakd leaves that to you: {how_to_install(module)}.'
        )

    wrapper.mmfakd = True  # type: ignore[attr-defined]
    return wrapper


def install_nothing() -> None:
    """Let ``mmengine.hub`` name a missing library in place of installing it.

    MMEngine's ``get_config('library::...')`` runs ``pip install`` for a library that is
    not there, without bounds. In an environment of the maintained line that mixes the
    families, and a config from elsewhere may name the library.
    """
    from mmengine.utils import install_package as original

    if not hasattr(original, 'mmfakd'):
        rebind('install_package', original, _refusing(original))
