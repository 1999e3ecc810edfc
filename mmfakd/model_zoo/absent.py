# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Libraries that a config needs and that are not installed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mmfakd.compat.how_to_install import how_to_install

# Libraries of models.
_LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')
_NAMES = re.compile(rf'^({"|".join(_LIBRARIES)})(?=$|\.|::|/)')
_KEYS = ('type', '_scope_', 'default_scope', 'cfg_path', '_base_')


def absent_libraries(cfg: Any = None) -> list[str]:
    """List the libraries that are not installed.

    Args:
        cfg (Any): A config, or a part of one. Defaults to None.

    Returns:
        list[str]: Of those that the config names in a type, scope or path; without a
        config of all that models come from.
    """
    # A config as a whole is no mapping.
    cfg = getattr(cfg, '_cfg_dict', cfg)
    wanted = _LIBRARIES if cfg is None else dict.fromkeys(_named(cfg))
    return [library for library in wanted if find_spec(library) is None]


def absence(libraries: list[str]) -> str:
    """Say that libraries are not installed, and how they are.

    Args:
        libraries (list[str]): The libraries.

    Returns:
        str: A sentence, or nothing where there are none.
    """
    if not libraries:
        return ''
    verb = 'is' if len(libraries) == 1 else 'are'
    install = how_to_install(*libraries)
    return f'{" and ".join(libraries)} {verb} not installed ({install})'


def check_installed(cfg: Any, what: str) -> None:
    """Refuse a config whose libraries are not installed.

    Args:
        cfg (Any): The config, or a part of one.
        what (str): What it is, for the message.

    Raises:
        ModuleNotFoundError: If one is not.
    """
    absent = absent_libraries(cfg)
    if absent:
        raise ModuleNotFoundError(f'{what} cannot be built: {absence(absent)}.')


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _KEYS and isinstance(item, str):
                yield from _NAMES.findall(item)
            else:
                yield from _named(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _named(item)
