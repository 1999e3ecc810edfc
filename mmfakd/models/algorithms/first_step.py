# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the first step of training says of a distillation."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

from mmengine.logging import print_log

from mmfakd.messages import aligned

from .level_report import LevelReport, Shape

NOTHING_DISTILLED = 'NOTHING IS DISTILLED'
_WIDTH = 100
_HEAD = ['loss', 'layer', 'shape', 'weighted', 'share', 'gradient', 'reaches']
# Columns of what does not vary in width: all but layer and shape.
_LONGEST = 36


@dataclass
class FirstStep:
    """The report of the first training step.

    Args:
        levels (list[LevelReport]): One for each distillation loss.
        student_weights (int): Number of the student's weights that learn.
        own_loss (float): The student's own loss; not a number where it has none.
        total (LevelReport, optional): Of all distillation losses together.
        warmup (float): The present factor of the warm-up.
        inputs (dict): Statistics of the batch as student and teacher get it.
        unmeasured (str): Why there are no gradients, '' where there are.
        errors (list[str]): What makes the distillation void.
        warnings (list[str]): What is likely to spoil it.
        notes (list[str]): What else is to be known.
    """

    levels: list[LevelReport]
    student_weights: int = 0
    own_loss: float = math.nan
    total: LevelReport | None = None
    warmup: float = 1.0
    inputs: dict[str, Any] = field(default_factory=dict)
    unmeasured: str = ''
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def teaches_nothing(self) -> bool:
        """bool: whether it is void, by mistake (an error) or as a control."""
        told = any(text.startswith(NOTHING_DISTILLED) for text in self.warnings)
        return told or bool(self.errors)

    def as_dict(self) -> dict[str, Any]:
        """Describe it for a file.

        Returns:
            dict: Numbers, texts, lists and dicts of them.
        """
        return dict(
            levels=[level.as_dict() for level in self.levels],
            total=self.total.as_dict() if self.total else None,
            own_loss=self.own_loss if math.isfinite(self.own_loss) else None,
            student_weights=self.student_weights,
            warmup=self.warmup,
            inputs=_finite(self.inputs),
            gradients=self.unmeasured or 'measured',
            errors=self.errors,
            warnings=self.warnings,
            notes=self.notes,
        )

    def scalars(self, prefix: str = 'first_step') -> dict[str, float]:
        """Name its numbers for a visualizer.

        Args:
            prefix (str): What the names begin with. Defaults to 'first_step'.

        Returns:
            dict[str, float]: Name -> value, of those that are known.
        """
        rows = [*self.levels, *([self.total] if self.total else [])]
        found = {
            f'{prefix}/{row.name}/{key}': getattr(row, key)
            for row in rows
            for key in ('loss', 'share', 'ratio', 'reached')
        }
        return {
            key: float(value)
            for key, value in found.items()
            if value is not None and math.isfinite(value)
        }

    def text(self) -> str:
        """Write the report for a terminal of 100 columns.

        Returns:
            str: The table, what the columns mean, and notes.
        """
        return '\n'.join(
            [
                'What the first step distils:',
                aligned([_HEAD, *self._rows()]),
                *self._legend(),
                *self.remarks('notes'),
            ]
        )

    def remarks(self, *kinds: str) -> Iterator[str]:
        """List what is to be said, wrapped.

        Args:
            *kinds (str): Any of ``'errors'``, ``'warnings'`` and ``'notes'``.

        Yields:
            str: One after the other.
        """
        for kind in kinds:
            for remark in getattr(self, kind):
                yield _wrapped(f'{kind[:-1].upper()}: {remark}')

    def log(self) -> None:
        """Write the report into the current log, warnings as such."""
        print_log(self.text(), logger='current')
        # In one piece each, to be copied and searched for.
        for warning in self.warnings:
            print_log(warning, logger='current', level=logging.WARNING)

    def _rows(self) -> Iterator[list[str]]:
        for level in self.levels:
            sides = [*_sides('S', level.student), *_sides('T', level.teacher)]
            for i, (layer, shape) in enumerate(sides or [('-', '-')]):
                numbers = _numbers(level, self) if i == 0 else [''] * 4
                yield [level.name if i == 0 else '', layer, shape, *numbers]
        if self.total is not None and len(self.levels) > 1:
            yield ['total', '', '', *_numbers(self.total, self)]
        if math.isfinite(self.own_loss):
            share = 1 - self.total.share if self.total else math.nan
            numbers = [_short(self.own_loss), _percent(share), '1', '']
            yield ["student's own", '', '', *numbers]

    def _legend(self) -> Iterator[str]:
        if self.total is None:
            yield 'The losses have not been computed.'
            return
        full = ''
        if self.warmup != 1:
            full = f' at full weight (the warm-up begins at {self.warmup:.3g} of it)'
        compared = "over that of the student's own loss, on the weights that it reaches"
        if math.isnan(self.own_loss):
            compared = "alone: there is no loss of the student's own to compare with"
        gradient = f'gradient: norm of its gradient on the student {compared}'
        if self.unmeasured:
            gradient = f'gradient: not measured ({self.unmeasured})'
        yield _wrapped(
            f'S, T: student, teacher. weighted: the loss{full}. share: of all losses. '
            f'{gradient}. reaches: how many of the '
            f"student's {self.student_weights:,} weights."
        )


def _finite(value: Any) -> Any:
    """Leave out numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sides(letter: str, features: Sequence[tuple[str, Shape]]) -> list[tuple[str, str]]:
    return [
        (f'{letter} {_shortened(layer)}', ' x '.join(map(str, shape)) or 'scalar')
        for layer, shape in features
    ]


def _numbers(level: LevelReport, step: FirstStep) -> list[str]:
    gradient = level.norm if math.isnan(step.own_loss) else level.ratio
    reached = '?' if level.reached is None else f'{level.reached:,}'
    return [_short(level.loss), _percent(level.share), _short(gradient), reached]


def _short(number: float) -> str:
    return '-' if math.isnan(number) else f'{number:.3g}'


def _percent(share: float) -> str:
    return f'{100 * share:.3g} %' if math.isfinite(share) else '-'


def _shortened(layer: str) -> str:
    if len(layer) <= _LONGEST:
        return layer
    return f'{layer[: _LONGEST // 2 - 1]}..{layer[1 - _LONGEST // 2 :]}'


def _wrapped(text: str) -> str:
    # Names of layers and options are to be copied in one piece.
    return fill(
        text,
        _WIDTH,
        subsequent_indent='  ',
        break_long_words=False,
        break_on_hyphens=False,
    )
