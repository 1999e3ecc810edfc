# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How deep values from strangers' files may be nested in each other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any

# Python's own limit when it starts.
_USUAL_LIMIT = 1000
# Checkpoints of all libraries here stay below twenty.
_DEEPEST = 100
_MOST_VALUES = 5_000_000


@contextmanager
def usual_recursion_limit() -> Iterator[None]:
    """Let deep recursion be an error again.

    mmrazor raises Python's limit to a million calls when it is imported, and code in C,
    such as that which reads JSON, overflows the stack long before: the process dies.
    """
    before = sys.getrecursionlimit()
    # Where as many calls already run, nothing is changed.
    with suppress(RecursionError):
        sys.setrecursionlimit(min(before, _USUAL_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def find_excess(value: Any) -> str | None:
    """Tell whether to walk through a value would end the process, or never end.

    Nothing here recurses. A value that stands in many places counts each time, as
    whatever copies or prints it will meet it each time.

    Args:
        value (Any): Whatever a file holds.

    Returns:
        str | None: What is too much, None if nothing is.
    """
    level, count = [value], 0
    for _ in range(_DEEPEST):
        inner = chain.from_iterable(map(_values_in, level))
        level = list(islice(inner, _MOST_VALUES))
        count += len(level)
        if not level:
            return None
        if count >= _MOST_VALUES:
            return f'it holds {_MOST_VALUES:,} values or more'
    return f'its values are nested more than {_DEEPEST} levels deep'


def _values_in(value: Any) -> Iterable[Any]:
    # Of a class its instances' fields are meant, not its own.
    fields = () if isinstance(value, type) else getattr(value, '__dict__', {}).values()
    if isinstance(value, dict):
        return chain(value, value.values(), fields)
    if isinstance(value, (list, tuple, set, frozenset)):
        return chain(value, fields)
    return fields
