# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The weight of a distillation, as a user gives it."""

from __future__ import annotations

import math
from typing import Any, Union

LossWeight = Union[float, list[float], dict[str, Any]]

# Of the configs that are written where the user gives none: a number, or 'balance'.
# Measured for the methods on levels (docs/en/balance.md); others keep their recipe's.
DEFAULT_LOSS_WEIGHT = 'balance'
_BALANCE = 'balance'
_KEYS = {'ratio': float, 'iters': int}


def parse_loss_weight(text: str) -> LossWeight:
    """Read what ``--loss-weight`` was given.

    Args:
        text (str): A number; numbers separated by commas, one for each level;
            ``'balance'``, weights that the first iterations find by measurement; or
            ``'balance:ratio=0.5,iters=100'``.

    Returns:
        float | list[float] | dict: The ``loss_weight`` of a distiller.

    Raises:
        ValueError: If it is none of these, or 0 for all levels.
    """
    kind, _, rest = text.strip().partition(':')
    try:
        if kind == _BALANCE:
            return dict(type=_BALANCE, **_options(rest))
        numbers = [float(part) for part in text.split(',')]
        if not all(0 <= number < math.inf for number in numbers):
            raise ValueError
    except ValueError as error:
        raise ValueError(
            f'--loss-weight {text!r}: expected a number of 0 or more, one for each '
            'level (1,1,0.5), balance, or balance:ratio=0.5,iters=50.'
        ) from error
    if not any(numbers):
        raise ValueError(
            f'--loss-weight {text!r}: a weight of 0 distils nothing. Give one above 0, '
            'of several at least one. The student alone is trained by its own config: '
            'mmfakd train STUDENT.'
        )
    return numbers if len(numbers) > 1 else numbers[0]


def is_balanced(weight: LossWeight) -> bool:
    """Tell whether weights are found by measurement.

    Args:
        weight (float | list[float] | dict): What was parsed.

    Returns:
        bool: Whether they are.
    """
    return isinstance(weight, dict)


def _options(text: str) -> dict[str, Any]:
    found = {}
    for part in filter(None, text.split(',')):
        key, _, value = part.partition('=')
        if key.strip() not in _KEYS:
            raise ValueError
        found[key.strip()] = _KEYS[key.strip()](value)
        if not 0 < found[key.strip()] < math.inf:
            raise ValueError
    return found
