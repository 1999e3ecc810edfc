# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Levels of a model: what is recorded of it, shallow to deep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor

from .token_map import TokenMap, guess, is_grid

Level = Union[str, Mapping[str, Any]]
# One feature, or those of a neck, which stand for a level each.
Feature = Union[Tensor, tuple]

_KEYS = ('recorder', 'record_idx', 'data_idx', 'tokens')


def parse_levels(
    levels: Level | Sequence[Level], recorders: dict, role: str
) -> list[dict]:
    """Turn levels into what :func:`read_level` takes.

    Args:
        levels (str | dict | Sequence[str | dict]): The levels. One is a module name,
            or ``dict(recorder=..., record_idx=0, data_idx=None, tokens=None)`` whose
            recorder is a name in ``recorders``, the config of a recorder, or a module
            name, and whose ``tokens`` is the config of a :class:`TokenMap`.
        recorders (dict): Configs of the recorders. Those that the levels ask for are
            added.
        role (str): ``'student'`` or ``'teacher'``, for the messages.

    Returns:
        list[dict]: ``recorder``, and what is given of ``record_idx``, ``data_idx``
        and ``tokens``, for each level.

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
    return [_parse_level(level, recorders, f'{role}_levels') for level in levels]


def read_level(
    distiller: ConfigurableDistiller, level: Mapping[str, Any], from_student: bool
) -> Feature:
    """Read the feature of a level after a forward pass.

    Args:
        distiller (ConfigurableDistiller): The distiller that recorded it.
        level (Mapping): The level, as :func:`parse_levels` returns it; a ``connector``
            in it is the name of what the feature goes through.
        from_student (bool): Whose level it is.

    Returns:
        Tensor | tuple: The feature (N, C, H, W) or (N, C), or the features of a neck.

    Raises:
        ValueError: If the module was not called, or its record does not make a
            feature. The message names the level.
    """
    role = 'student' if from_student else 'teacher'
    name, call = level['recorder'], level.get('record_idx', 0)
    manager = (
        distiller.student_recorders if from_student else distiller.teacher_recorders
    )
    calls = len(manager.get_recorder(name).data_buffer)
    if not -calls <= call < calls:
        raise ValueError(
            f'{role} level {name!r}: record_idx={call}, but this step made {calls} '
            'record(s); choose a module that runs as often in training.'
        )
    record = distiller.get_record(name, from_student, call)
    try:
        feature = to_feature(record, level.get('data_idx'), level.get('tokens'))
    except ValueError as error:
        raise ValueError(f'{role} level {name!r}: {error}') from error
    if 'connector' in level:
        feature = distiller.connectors[level['connector']](feature)
    return feature


def to_feature(
    record: Any,
    data_idx: int | Sequence[int] | None = None,
    tokens: TokenMap | None = None,
) -> Feature:
    """Turn what a module returned into the feature of a level.

    A record ``(tokens, (h, w))``, or ``(tokens, h, w)``, is one feature. Any other
    tuple is a neck's.

    Args:
        record (Any): What was recorded.
        data_idx (int | Sequence[int], optional): Which part of it to take; a sequence
            goes into nested parts. A grid (h, w) right behind the part belongs to it.
        tokens (TokenMap, optional): How tokens (N, L, C) become a map. Tokens with
            their grid need none.

    Returns:
        Tensor | tuple[Tensor, ...]: The feature, or those of a neck.

    Raises:
        ValueError: If there is no such part, it is no tensor, or it holds tokens that
            do not make a map.
    """
    grid = None
    for index in [data_idx] if isinstance(data_idx, int) else data_idx or []:
        if not isinstance(record, (tuple, list)) or not (
            -len(record) <= index < len(record)
        ):
            raise ValueError(
                f'data_idx={data_idx} finds no part {index} in {_describe(record)}.'
            )
        grid = _grid_behind(record, index)
        record = record[index]
    if _has_one_part(record):
        grid, record = _grid_behind(record, 0), record[0]
    if isinstance(record, Tensor):
        return _to_map(record, grid, tokens)
    if isinstance(record, (tuple, list)) and all(
        isinstance(part, Tensor) or _has_one_part(part) for part in record
    ):
        return tuple(to_feature(part, None, tokens) for part in record)
    raise ValueError(
        f'recorded {_describe(record)}; expected a tensor or a tuple of tensors. '
        'Choose one part of it with `data_idx`, a part of a part with '
        'data_idx=(0, 1).'
    )


def _parse_level(level: Level, recorders: dict, owner: str) -> dict:
    """One level with the name of its recorder, which is added where it lacks."""
    if isinstance(level, str):
        level = dict(recorder=level)
    recorder = level.get('recorder') if isinstance(level, Mapping) else None
    if not isinstance(recorder, (str, Mapping)):
        raise ValueError(
            f'{owner}: got {level!r}; expected a module name or dict(recorder=name, '
            'record_idx=0, data_idx=None, tokens=None).'
        )
    unknown = set(level) - set(_KEYS)
    if unknown:
        raise ValueError(
            f'{owner}: {sorted(unknown)} in {dict(level)} is not known; a level has '
            f'{", ".join(f"`{key}`" for key in _KEYS)}.'
        )
    parsed = dict(level)
    if isinstance(recorder, str):
        recorders.setdefault(
            recorder, dict(type='mmrazor.ModuleOutputs', source=recorder)
        )
    else:
        parsed['recorder'] = f'{recorder.get("type")} of {recorder.get("source")}'
        recorders[parsed['recorder']] = dict(recorder)
    place = f'{owner}, {parsed["recorder"]!r}'
    call, path = parsed.get('record_idx', 0), parsed.get('data_idx')
    for index in (call, *(path if isinstance(path, (tuple, list)) else [path or 0])):
        if not isinstance(index, int):
            raise ValueError(
                f'{place}: record_idx={call!r}, data_idx={path!r}; expected integers, '
                'for `data_idx` also None or a sequence of them.'
            )
    if parsed.get('tokens') is not None:
        try:
            parsed['tokens'] = TokenMap(parsed['tokens'])
        except ValueError as error:
            raise ValueError(f'{place}: {error}') from error
    return parsed


def _to_map(
    feature: Tensor, grid: Sequence[int] | None, tokens: TokenMap | None
) -> Tensor:
    """A feature, which is a map or vector, or becomes a map."""
    if tokens is None:
        if feature.dim() != 3:
            return feature
        if grid is None:
            raise ValueError(
                f'recorded tokens of shape {tuple(feature.shape)}, (N, L, C); give the '
                'level `tokens` to say how they become a map: tokens=dict(prefix=0, '
                'suffix=0, size=None), with the number of class and register tokens '
                'before and behind the patches, and size=(h, w) where the grid of the '
                f'patches is not square.{guess(feature.shape[1])}'
            )
        tokens = TokenMap({})
    return tokens(feature, grid)


def _has_one_part(record: Any) -> bool:
    """Whether a record is a tensor and its grid."""
    return (
        isinstance(record, (tuple, list))
        and len(record) in (2, 3)
        and isinstance(record[0], Tensor)
        and _grid_behind(record, 0) is not None
        and not any(isinstance(part, Tensor) for part in record[1:])
    )


def _grid_behind(record: Sequence, index: int) -> Sequence[int] | None:
    """The grid that follows a part of a record, as (h, w) or as h, w."""
    rest = record[index % len(record) + 1 :]
    if rest and is_grid(rest[0]):
        return rest[0]
    return rest[:2] if is_grid(rest[:2]) else None


def _describe(record: Any) -> str:
    """A record in short, for messages."""
    if isinstance(record, Tensor):
        return f'a tensor of shape {tuple(record.shape)}'
    if isinstance(record, (tuple, list)) and not is_grid(record):
        parts = ', '.join(_describe(part) for part in record)
        return f'a {type(record).__name__} of {len(record)} ({parts})'
    return f'a {type(record).__name__}'


__all__ = ['Feature', 'Level', 'parse_levels', 'read_level', 'to_feature']
