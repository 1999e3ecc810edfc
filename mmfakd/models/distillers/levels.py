# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Levels of a model: what is recorded of it, shallow to deep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

Level = Union[str, Mapping[str, Any]]


def parse_levels(
    levels: Level | Sequence[Level], recorders: dict, role: str
) -> list[dict]:
    """Turn levels into arguments of mmrazor's ``get_record``.

    Args:
        levels (str | dict | Sequence[str | dict]): The levels. One is a module name,
            or ``dict(recorder=..., record_idx=0, data_idx=None)`` whose recorder is a
            name in ``recorders`` or the config of one.
        recorders (dict): Configs of the recorders. Those that the levels ask for are
            added.
        role (str): ``'student'`` or ``'teacher'``, for the messages.

    Returns:
        list[dict]: ``recorder``, and what is given of ``record_idx`` and ``data_idx``,
        for each level.

    Raises:
        ValueError: For no levels, or one that is not as described.
    """
    if isinstance(levels, (str, Mapping)):
        levels = [levels]
    if not levels:
        raise ValueError(
            f'{role}_levels is empty; give at least one module name or '
            'dict(recorder=...).'
        )
    parsed = []
    for level in levels:
        if isinstance(level, str):
            recorders.setdefault(
                level, dict(type='mmrazor.ModuleOutputs', source=level)
            )
            level = dict(recorder=level)
        if not isinstance(level, Mapping) or 'recorder' not in level:
            raise ValueError(
                f'{role}_levels: got {level!r}; expected a module name or '
                'dict(recorder=name, record_idx=0, data_idx=None).'
            )
        unknown = set(level) - {'recorder', 'record_idx', 'data_idx'}
        if unknown:
            raise ValueError(
                f'{role}_levels: {sorted(unknown)} in {dict(level)} is not known; '
                'a level has `recorder`, `record_idx` and `data_idx`.'
            )
        if isinstance(level['recorder'], Mapping):
            level = dict(level, recorder=_add_recorder(level['recorder'], recorders))
        if level['recorder'] not in recorders:
            raise ValueError(
                f'{role}_levels: no recorder {level["recorder"]!r} in '
                f'{role}_recorders, which has {sorted(recorders)}.'
            )
        parsed.append(dict(level))
    return parsed


def _add_recorder(cfg: Mapping, recorders: dict) -> str:
    """Add the recorder of a config and return its name."""
    name = f'{cfg.get("type")} of {cfg.get("source")}'
    recorders[name] = dict(cfg)
    return name


__all__ = ['Level', 'parse_levels']
