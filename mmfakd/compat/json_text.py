# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""JSON of strangers' files."""

from __future__ import annotations

import json
from typing import Any

from .nesting import usual_recursion_limit


def read_json(text: str) -> Any:
    """Read a JSON text that may be nested so deeply that the process would end.

    Args:
        text (str): The text.

    Returns:
        Any: Its value.

    Raises:
        json.JSONDecodeError: If it is no JSON, or nested too deeply.
    """
    try:
        with usual_recursion_limit():
            return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError('it is nested too deeply', text[:60], 0) from None
