# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Let MMEngine find mmfakd's configs under ``mmfakd::``."""

from pathlib import Path
from typing import Callable

from .rebind import rebind

_PACKAGE = 'mmfakd'
_FOLDER = Path(__file__).resolve().parents[1]


def _with_own_path(get_installed_path: Callable[[str], str]) -> Callable[[str], str]:
    """Wrap MMEngine's ``get_installed_path`` so that it knows mmfakd's folder."""

    def wrapper(package: str) -> str:
        """Get the folder of an installed package; see mmengine.utils."""
        if package != _PACKAGE:
            return get_installed_path(package)
        if not (_FOLDER / '.mim' / 'model-index.yml').is_file():
            raise FileNotFoundError(
                f'Configs of mmfakd were asked for by name ("{_PACKAGE}::..."), '
                f'which needs the folder {_FOLDER / ".mim"} that installation '
                'makes. Run `pip install .` or `pip install -e .` in the checkout '
                'of mmfakd, or name the config by its path.'
            )
        return str(_FOLDER)

    wrapper.mmfakd = True  # type: ignore[attr-defined]
    return wrapper


def register_config_package() -> None:
    """Make ``mmfakd::...`` a config path for inheritance and ``mmengine.hub``.

    MMEngine 0.10 asserts that the package stands on a list of OpenMMLab's own
    libraries (upstream thread
    https://github.com/open-mmlab/mmengine/issues/1410), and looks for its
    ``.mim`` folder in site-packages, where an editable install has none (compare
    https://github.com/open-mmlab/mmyolo/issues/1077). This puts mmfakd on the
    list and answers ``get_installed_path('mmfakd')`` with the real folder. Other
    packages are not touched. How configs are then found and in which scope they are
    built is changed in ``mmfakd.model_zoo.inheritance``.
    """
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.utils import get_installed_path as original

    MODULE2PACKAGE.setdefault(_PACKAGE, _PACKAGE)
    if hasattr(original, _PACKAGE):
        return
    rebind('get_installed_path', original, _with_own_path(original))
