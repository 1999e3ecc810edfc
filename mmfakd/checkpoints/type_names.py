# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of what configs are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
