# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the first step of training says of one distillation loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass
class LevelReport:
    """One distillation loss at the first step, in numbers of Python.

    Args:
        name (str): Name of the loss, such as ``'loss_level0'``.
        student (list[tuple[str, tuple[int, ...]]]): The student's layers that it
            compares, and the shapes of what they yield.
        teacher (list[tuple[str, tuple[int, ...]]]): The teacher's.
        weight (float, optional): Its weight, where that is a number.
        option (str): Where the config has that weight, '' where nowhere.
        loss (float): The weighted loss at full weight, without warm-up. Not a number
            before it is computed, as are the following.
        share (float): Its part of all losses of the student, its own included.
        norm (float): Norm of its gradient on the student.
        own_norm (float): Norm of the gradient of the student's own loss on the same
            parameters.
        reached (int, optional): Number of the student's weights that it reaches; None
            where that is not known.
    """

    name: str
    student: list[tuple[str, Shape]]
    teacher: list[tuple[str, Shape]]
    weight: float | None = None
    option: str = ''
    loss: float = math.nan
    share: float = math.nan
    norm: float = math.nan
    own_norm: float = math.nan
    reached: int | None = None

    @property
    def ratio(self) -> float:
        """Norm over that of the student's own loss (float)."""
        if self.own_norm:
            return self.norm / self.own_norm
        return math.inf if self.norm else math.nan

    @property
    def title(self) -> str:
        """Name and the student's layers (str), for messages."""
        layers = ', '.join(repr(layer) for layer, _ in self.student)
        return f'{self.name} ({layers})' if layers else self.name

    def as_dict(self) -> dict[str, Any]:
        """Describe it for a file.

        Returns:
            dict: Its values; None where a number is not known.
        """
        found: dict[str, Any] = dict(name=self.name)
        for role in ('student', 'teacher'):
            features = getattr(self, role)
            found[f'{role}_layer'] = [layer for layer, _ in features]
            found[f'{role}_shape'] = [list(shape) for _, shape in features]
        for key in ('weight', 'loss', 'share', 'norm', 'own_norm', 'ratio', 'reached'):
            value = getattr(self, key)
            known = value is not None and math.isfinite(value)
            found[key] = value if known else None
        return found
