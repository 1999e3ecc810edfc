# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Levels of a model: what is recorded of it, shallow to deep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor

from mmfakd.ops.maps import as_map

from .token_map import TokenMap, guess, is_grid

# A level in a config: a module name or the fields of a level.
LevelCfg = Union[str, Mapping[str, Any]]
# One feature, or those of a neck, which stand for a level each.
Feature = Union[Tensor, tuple]


@dataclass(frozen=True)
class Level:
    """A feature of a model: where it is recorded and how it is read.

    Args:
        recorder (str): Name of the recorder.
        from_student (bool): Whether the student has it, not the teacher.
        record_idx (int, optional): Which call of the module. None: the first, and if
            there are others the look at the first step says so.
        data_idx (int | Sequence[int], optional): Which part of the record, see
            :func:`to_feature`.
        tokens (TokenMap, optional): How tokens become a map.
        connector (str, optional): Name of what the feature goes through.
        connector_idx (int, optional): Which part of what comes out, in a mapping of
            mmrazor's, whose records have these fields but for ``tokens``.
    """

    recorder: str
    from_student: bool
    record_idx: int | None = None
    data_idx: int | Sequence[int] | None = None
    connector: str | None = None
    connector_idx: int | None = None
    tokens: TokenMap | None = None

    @classmethod
    def parse(cls, cfg: LevelCfg, recorders: dict, role: str) -> Level:
        """Parse a level of a config.

        Args:
            cfg (str | dict): A module name, or ``dict(recorder=..., record_idx=0,
                data_idx=None, tokens=None)`` whose recorder is a name in
                ``recorders``, the config of a recorder, or a module name, and whose
                ``tokens`` is the config of a :class:`TokenMap`.
            recorders (dict): Configs of the recorders, to which the level's is added.
            role (str): ``'student'`` or ``'teacher'``.

        Returns:
            Level: The level.

        Raises:
            ValueError: If it is not as described.
        """
        given: Any = dict(recorder=cfg) if isinstance(cfg, str) else cfg
        owner = f'{role}_levels'
        recorder = given.get('recorder') if isinstance(given, Mapping) else None
        # '' alone is a slip; dict(recorder='') is the whole model, to take a part of.
        if cfg == '' or not isinstance(recorder, (str, Mapping)):
            raise ValueError(
                f'{owner}: got {cfg!r}; expected a module name or dict(recorder=name, '
                'record_idx=0, data_idx=None, tokens=None).'
            )
        unknown = set(given) - {'recorder', 'record_idx', 'data_idx', 'tokens'}
        if unknown:
            raise ValueError(
                f'{owner}: {sorted(unknown)} in {dict(given)} is not known; a level '
                'has `recorder`, `record_idx`, `data_idx`, `tokens`.'
            )
        if isinstance(recorder, str):
            name = recorder
            recorders.setdefault(name, dict(type='mmrazor.ModuleOutputs', source=name))
        else:
            name = f'{recorder.get("type")} of {recorder.get("source")}'
            recorders[name] = dict(recorder)
        call, path = given.get('record_idx'), given.get('data_idx')
        for index in (0 if call is None else call, *as_path(path)):
            if not isinstance(index, int):
                raise ValueError(
                    f'{owner}, {name!r}: record_idx={call!r}, data_idx={path!r}; '
                    'expected integers, for `data_idx` also None or a sequence of them.'
                )
        tokens = given.get('tokens')
        try:
            tokens = None if tokens is None else TokenMap(tokens)
        except ValueError as error:
            raise ValueError(f'{owner}, {name!r}: {error}') from error
        return cls(name, role == 'student', call, path, tokens=tokens)

    @property
    def call(self) -> int:
        """int: Which call of the module is taken."""
        return self.record_idx or 0

    def recorder_of(self, distiller: ConfigurableDistiller) -> BaseRecorder:
        """Find the recorder of this level.

        Args:
            distiller (ConfigurableDistiller): The distiller that has it.

        Returns:
            BaseRecorder: The recorder.
        """
        role = 'student' if self.from_student else 'teacher'
        return getattr(distiller, f'{role}_recorders').get_recorder(self.recorder)

    def read(self, distiller: ConfigurableDistiller) -> Feature:
        """Read the feature after a forward pass.

        Args:
            distiller (ConfigurableDistiller): The distiller that recorded it.

        Returns:
            Tensor | tuple: The feature (N, C, H, W) or (N, C), or the features of a
            neck.

        Raises:
            ValueError: If the module was not called, or its record does not make a
                feature. The message names the level.
        """
        records = self.recorder_of(distiller).data_buffer
        calls = len(records)
        try:
            if not -calls <= self.call < calls:
                raise ValueError(
                    f'record_idx={self.call}, but this step made {calls} '
                    'record(s); choose a module that runs as often in training.'
                )
            feature = to_feature(records[self.call], self.data_idx, self.tokens)
        except ValueError as error:
            role = 'student' if self.from_student else 'teacher'
            raise ValueError(f'{role} level {self.recorder!r}: {error}') from error
        if self.connector is None:
            return feature
        return distiller.connectors[self.connector](feature)

    def read_maps(self, distiller: ConfigurableDistiller) -> list[tuple[str, Tensor]]:
        """Read the feature, or those of a neck, shallow to deep.

        Args:
            distiller (ConfigurableDistiller): The distiller that recorded it.

        Returns:
            list[tuple[str, Tensor]]: Names for messages, and the features.

        Raises:
            ValueError: As :meth:`read`.
        """
        feature = self.read(distiller)
        part = '' if self.data_idx is None else f'[{self.data_idx}]'
        name = f'{self.recorder}{part}'
        if isinstance(feature, Tensor):
            feature = (feature,)
        if len(feature) < 2:
            return [(name, one) for one in feature]
        maps = [(f'{name}[{i}]', one) for i, one in enumerate(feature)]
        sizes = [math.prod(as_map(one).shape[2:]) for one in feature]
        return maps[::-1] if sizes[0] < sizes[-1] else maps


def parse_levels(
    levels: LevelCfg | Sequence[LevelCfg], recorders: dict, role: str
) -> list[Level]:
    """Parse one level or several.

    Args:
        levels (str | dict | Sequence[str | dict]): As :meth:`Level.parse` takes them.
        recorders (dict): Configs of the recorders. Those that the levels ask for are
            added.
        role (str): ``'student'`` or ``'teacher'``.

    Returns:
        list[Level]: The levels.

    Raises:
        ValueError: For no levels, or one that is none.
    """
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        levels = [] if levels is None else [levels]
    if not levels:
        raise ValueError(
            f'{role}_levels is empty; give at least one module name or '
            'dict(recorder=...).'
        )
    return [Level.parse(level, recorders, role) for level in levels]


def as_path(data_idx: int | Sequence[int] | None) -> Sequence[int]:
    """List the indices that lead to a part of a record.

    Args:
        data_idx (int | Sequence[int], optional): One, several or none.

    Returns:
        Sequence[int]: The indices, from the outside in.
    """
    if isinstance(data_idx, (tuple, list)):
        return data_idx
    return [] if data_idx is None else [data_idx]  # type: ignore[list-item]


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
    for index in as_path(data_idx):
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
