# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The pairs of stock models that are tried, as ``model_pairs.yml`` lists them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml


class Pair(NamedTuple):
    """A student and a teacher.

    Args:
        name (str): Short names of the two, and the method.
        student (str): The student's config.
        teacher (str): The teacher's config.
        size (tuple[int, ...]): Height and width of the input, of both models.
        method (str): The method of distillation.
        by_default (bool): Whether the pair runs in a plain test run.
        library (str): The library of the two.
    """

    name: str
    student: str
    teacher: str
    size: tuple[int, ...]
    method: str
    by_default: bool
    library: str


def read_pairs() -> list[Pair]:
    """Read the table of pairs.

    Returns:
        list[Pair]: The pairs in its order.
    """
    found = []
    text = Path(__file__).with_suffix('.yml').read_text()
    for library, table in yaml.safe_load(text).items():
        known: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (_path(library, config), tuple(map(int, size.split('x'))))
            for size, configs in table['models'].items()
            for name, config in configs.items()
        }
        for row in table['pairs']:
            student, teacher, *rest = row.split()
            asked = (word for word in rest if word != 'default')
            method = next(asked, table['method'])
            ours, our_size = known[student]
            theirs, their_size = known[teacher]
            # Both models see one image.
            size = tuple(map(max, our_size, their_size))
            name = f'{student}-{teacher}-{method}'
            default = 'default' in rest
            found.append(Pair(name, ours, theirs, size, method, default, library))
    return found


def _path(library: str, config: str) -> str:
    """A stock config, or one of the tests' own."""
    if config.startswith('tests/'):
        return str(Path(__file__).resolve().parents[1] / f'{config}.py')
    return f'{library}::{config}.py'


PAIRS = read_pairs()
