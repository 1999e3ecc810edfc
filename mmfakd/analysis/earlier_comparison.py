# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A comparison of another day, read from its file."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmfakd.compat.json_text import read_json
from mmfakd.compat.nesting import find_excess

from .log_rows import is_number

Check = Callable[[Any], bool]


def read_comparison(path: str) -> dict | None:
    """Read what ``mmfakd compare`` has written, in order to add to it.

    Args:
        path (str): The file of figures.

    Returns:
        dict | None: The comparison; None where there is no file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it has another name, or is no such file.
    """
    if not path.endswith('.json'):
        raise ValueError(f'--add-to {path}: expected a file of figures, FILE.json.')
    if not osp.exists(path):
        return None
    try:
        found = read_json(Path(path).read_text('utf-8'))
    except ValueError:
        found = None
    if find_excess(found) or not _is_comparison(found):
        raise ValueError(
            f'--add-to {path}: expected what `mmfakd compare --json` wrote; it is left '
            'as it is.'
        )
    return found


def _is(*kinds: type | None) -> Check:
    """A check for values of some types; None is a type of its own."""
    types = tuple(type(None) if kind is None else kind for kind in kinds)
    # Truth values are ints, too.
    return lambda value: isinstance(value, types) and not isinstance(value, bool)


def _each(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _of_all(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _has(needed: Mapping[str, Check], also: Mapping[str, Check] | None = None) -> Check:
    """A check for dicts: of keys that must be there, and of keys that may."""
    known = {**needed, **(also or {})}

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and needed.keys() <= value.keys()
            and all(good(value[key]) for key, good in known.items() if key in value)
        )

    return check


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _or_none(value: Any) -> bool:
    return value is None or is_number(value)


_TEXT = _is(str)
_TIMES = dict.fromkeys(('seconds', 'step_seconds', 'data_share'), _or_none)
_STATISTICS = _has(dict(mean=_or_none, spread=_or_none))
_is_run = _has(
    dict(
        work_dir=_TEXT,
        seed=_is(int, None),
        last=is_number,
        best=is_number,
        curve=lambda value: value != [] and _each(_is_point)(value),
        losses=_each(_is_point),
        **_TIMES,
    ),
    # Files of older versions do not have it.
    dict(config=_of_all(_TEXT)),
)
_is_method = _has(
    dict(
        method=_TEXT,
        unit=_is(str, None),
        last=_STATISTICS,
        best=_STATISTICS,
        parameters=_is(int, None),
        added=_is(int, None),
        runs=_each(_is_run),
        **_TIMES,
    )
)
_is_comparison = _has(
    dict(metric=_TEXT, baseline=_TEXT, methods=_each(_is_method)),
    dict(
        teacher=lambda value: value is None or _is_method(value),
        remarks=_of_all(_each(_TEXT)),
    ),
)
