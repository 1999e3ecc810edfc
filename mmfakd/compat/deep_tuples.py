# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tuples within tuples that a process dies of, or never ends with, as it reads them."""

from __future__ import annotations

import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

# To hash a tuple within tuples, as a key of a dict, Python goes down level by level
# on the stack, which holds about a hundred thousand levels. It does so again wherever
# a tuple stands, as it keeps no hash: one of two that are one another has twice as
# many places with each level.
_DEEPEST = 1000
_MOST_PLACES = 5_000_000
# With fewer, neither is reached.
_FEWEST = 20
_OPCODES = (b't', b'\x85', b'\x86', b'\x87')


@dataclass(frozen=True)
class _Nest:
    """What is within a value: levels of tuples, and places in which tuples stand."""

    depth: int = 0
    places: int = 0

    @property
    def excessive(self) -> bool:
        return self.depth > _DEEPEST or self.places > _MOST_PLACES


_LEAF = _Nest()


def nests_tuples_deeply(pickled: bytes | IO[bytes]) -> bool:
    """Tell whether a pickle nests tuples beyond what Python can hash.

    That is more than a thousand levels deep, or in more than five million places.
    Nothing is unpickled: the opcodes are followed with counts in place of values.

    Args:
        pickled (bytes | IO[bytes]): The pickle, or a file in which it comes next.

    Returns:
        bool: Whether it does; False for what is no pickle.
    """
    if isinstance(pickled, bytes) and sum(map(pickled.count, _OPCODES)) < _FEWEST:
        return False
    try:
        return any(nest.excessive for nest in _nests(pickletools.genops(pickled)))
    # What is wrong with it is told by who unpickles it.
    except Exception:
        return False


def _nests(operations: Iterable[tuple[Any, Any, Any]]) -> Iterable[_Nest]:
    """Follow the opcodes of a pickle; yield what is in each tuple that they make."""
    # What lies on the pickle's stack, None for a mark.
    stack: list[_Nest | None] = []
    memo: dict[int, _Nest | None] = {}
    for opcode, argument, _ in operations:
        name = opcode.name
        if name == 'MARK':
            stack.append(None)
        elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in ('GET', 'BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name == 'DUP':
            stack.append(stack[-1])
        else:
            taken = _take(stack, opcode.stack_before)
            made = _LEAF
            if name.startswith('TUPLE'):
                depth = 1 + max((nest.depth for nest in taken), default=0)
                made = _Nest(depth, 1 + sum(nest.places for nest in taken))
                yield made
            stack += [made] * len(opcode.stack_after)


def _take(stack: list[_Nest | None], before: list[Any]) -> list[_Nest]:
    """Take from a stack what an opcode takes; return the tuples of it."""
    taken = []
    count = len(before)
    if pickletools.stackslice in before:
        while (nest := stack.pop()) is not None:
            taken.append(nest)
        count = before.index(pickletools.markobject)
    taken += [nest for nest in (stack.pop() for _ in range(count)) if nest]
    return [nest for nest in taken if nest.depth]
