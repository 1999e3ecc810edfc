# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of what configs are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def short_name(kind: object) -> str:
    """Name a class or function without its package.

    Args:
        kind (object): The ``type`` of a config: a name, with a scope or a module before
            it, or in a config in pure Python the class or function itself.

    Returns:
        str: The bare name.
    """
    return re.split('[./:]', getattr(kind, '__name__', str(kind)))[-1]


def type_name(config: Mapping) -> str:
    """Read what a config is of, without its package.

    Args:
        config (Mapping): A config of anything that is built.

    Returns:
        str: The name of its type, which a config in pure Python has as a class.
    """
    return short_name(config.get('type'))


def full_type_name(config: Mapping) -> str:
    """Read what a config is of, with the package where that is said.

    Args:
        config (Mapping): A config of anything that is built.

    Returns:
        str: Its type, as ``'mmdet.ResNet'``. Of a config in pure Python, which has a
        class or function there, the name with its module.
    """
    kind: Any = config.get('type')
    name = getattr(kind, '__name__', None)
    return str(kind) if name is None else f'{kind.__module__}.{name}'
