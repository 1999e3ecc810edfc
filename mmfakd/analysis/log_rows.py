# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The lines of a log, and which of them are read for what."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from mmfakd.compat.json_text import read_json

# Of the first step's report, and of what is learned.
_FIRST_STEP, _LOOK = 'first_step/', 'learning/'


def read_rows(path: str) -> tuple[list[dict], list[dict]]:
    """Read the lines of a log.

    Args:
        path (str): Its ``scalars.json``.

    Returns:
        tuple[list[dict], list[dict]]: Rows of training and validation, and what
        ``LearningPicturesHook`` has logged. Numbers that are null are NaN.

    Raises:
        ValueError: If a line but the last is no row of a log, or a value that is read
            of it is of another kind; the line is named.
    """
    lines = list(enumerate(Path(path).read_bytes().split(b'\n'), 1))
    lines = [(number, line) for number, line in lines if line.strip()]
    rows: list[dict] = []
    looks: list[dict] = []
    for number, line in lines:
        try:
            row = read_json(line.decode('utf-8'))
        except ValueError as error:
            # A killed process leaves half a line at the end.
            if number == lines[-1][0]:
                continue
            raise ValueError(f'{path}: line {number} is no JSON: {error}') from None
        if not isinstance(row, dict) or not _is_count(row.get('step')):
            raise ValueError(
                f'{path}: line {number} is no row of a log: '
                f'{line.decode("utf-8").strip()[:60]!r}. Expected an object with a '
                '"step".'
            )
        look = any(key.startswith(_LOOK) for key in row)
        # What is seen of the distillation is no validation.
        if not look and any(key.startswith(_FIRST_STEP) for key in row):
            continue
        try:
            (looks if look else rows).append(_checked(_without_prefix(row)))
        except ValueError as error:
            raise ValueError(f'{path}: line {number}: {error}') from None
    return rows, looks


def is_training(row: dict) -> bool:
    """Tell rows of training from those of validation.

    Args:
        row (dict): A row of a log.

    Returns:
        bool: Whether it is of training.
    """
    # Only what is logged after a training iteration counts iterations.
    return 'iter' in row


def epoch_in(row: dict) -> int:
    """Give the epoch of a row.

    Args:
        row (dict): A row of a log.

    Returns:
        int: The epoch, from 1; 0 where it says none.
    """
    return row.get('epoch', 0)


def is_of_student(key: str) -> bool:
    """Tell the losses of the student's own task, beside those of a distillation.

    Args:
        key (str): A key of a row of training.

    Returns:
        bool: Whether it is one.
    """
    return key.startswith('student.') and 'loss' in key


def is_number(value: Any) -> bool:
    """Tell whether a value can be computed with.

    Args:
        value (Any): A value of JSON.

    Returns:
        bool: Whether it is a number, and none beyond all floats. NaN is one, a truth
        value is none.
    """
    if type(value) is int:
        return abs(value) <= sys.float_info.max
    return type(value) is float


def _without_prefix(row: dict) -> dict:
    """Undo the log processor's ``log_with_hierarchy``."""
    return {re.sub('^(train|val)/', '', key): value for key, value in row.items()}


def _checked(row: dict) -> dict:
    """A row whose values can be computed with, where they are read."""
    training = is_training(row)
    checked = dict(row)
    for key, value in row.items():
        if training and key == 'epoch':
            good, kind = _is_count(value), 'a whole number'
        elif key.startswith(_LOOK) or (training and _is_measured(key)):
            # Tools that write strict JSON have null for NaN.
            checked[key] = math.nan if value is None else value
            good, kind = is_number(checked[key]), 'a number'
        else:
            # Of validations whatever is no number is none of the scores.
            good, kind = is_number(value) or type(value) is not int, 'a number'
        if not good:
            given = json.dumps(value)[:60]
            raise ValueError(f'"{key}" is {given}; expected {kind}.')
    return checked


def _is_measured(key: str) -> bool:
    return key in ('time', 'data_time', 'loss') or is_of_student(key)


def _is_count(value: Any) -> bool:
    # Truth values are ints, too.
    return type(value) is int and 0 <= value <= sys.maxsize
