# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Put another function in the place of one of MMEngine's."""

from __future__ import annotations

import sys
from typing import Any


def rebind(name: str, original: Any, replacement: Any) -> None:
    """Replace a function of MMEngine wherever a module of it has bound its name.

    Args:
        name (str): Its name.
        original (Any): The function; what is already another one stays.
        replacement (Any): What is called in its place.
    """
    for module_name, module in list(sys.modules.items()):
        bound = getattr(module, name, None)
        if bound is original and module_name.startswith('mmengine'):
            setattr(module, name, replacement)
