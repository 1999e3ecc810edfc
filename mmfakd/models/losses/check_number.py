# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Numbers of losses that mean something: weights and temperatures."""

from __future__ import annotations

import math
from typing import Any


def is_amount(value: Any) -> bool:
    """Tell whether a value is a finite number of 0 or more; a bool is none.

    Args:
        value (Any): What was given.

    Returns:
        bool: Whether it is.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < math.inf


def check_number(owner: str, name: str, value: Any, above_zero: bool = False) -> None:
    """Check that a weight is not negative, or that a temperature is above zero.

    Args:
        owner (str): What has the number, for the message.
        name (str): The argument's name, likewise.
        value (Any): What was given.
        above_zero (bool): Whether zero is refused, too. Defaults to False.

    Raises:
        ValueError: If it is no finite number, or too small.
    """
    number = isinstance(value, (int, float)) and math.isfinite(value)
    if not number or value < 0 or (above_zero and value == 0):
        least = 'above 0' if above_zero else 'of 0 or more'
        raise ValueError(
            f'{owner} got {name}={value!r}, expected a finite number {least}: correct '
            f'`{name}` in the config.'
        )
