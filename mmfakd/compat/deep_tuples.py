# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tuples that a pickle nests so deeply that the process ends as it reads them."""

from __future__ import annotations

import pickletools
from collections.abc import Iterable
from typing import IO, Any

# To hash a tuple within tuples, as a key of a dict, Python goes down level by level
# on the stack, which holds about a hundred thousand levels.
_DEEPEST = 1000
_OPCODES = (b't', b'\x85', b'\x86', b'\x87')


def nests_tuples_deeply(pickled: bytes | IO[bytes]) -> bool:
    """Tell whether a pickle nests tuples more than a thousand levels deep.

    Nothing is unpickled: the opcodes are followed with depths in place of values.

    Args:
        pickled (bytes | IO[bytes]): The pickle, or a file in which it comes next.

    Returns:
        bool: Whether it does; False for what is no pickle.
    """
    if isinstance(pickled, bytes) and sum(map(pickled.count, _OPCODES)) < _DEEPEST:
        return False
    try:
        return any(depth > _DEEPEST for depth in _depths(pickletools.genops(pickled)))
    # What is wrong with it is told by who unpickles it.
    except Exception:
        return False


def _depths(operations: Iterable[tuple[Any, Any, Any]]) -> Iterable[int]:
    """Follow the opcodes of a pickle; yield the depth of each tuple that they make."""
    # Depths of what lies on the pickle's stack, None for a mark.
    stack: list[int | None] = []
    memo: dict[int, int | None] = {}
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
            depth = 0
            if name.startswith('TUPLE'):
                depth = 1 + max(taken, default=0)
                yield depth
            stack += [depth] * len(opcode.stack_after)


def _take(stack: list[int | None], before: list[Any]) -> list[int]:
    """Take from a stack what an opcode takes; return the depths."""
    taken = []
    count = len(before)
    if pickletools.stackslice in before:
        while (depth := stack.pop()) is not None:
            taken.append(depth)
        count = before.index(pickletools.markobject)
    return taken + [depth for depth in (stack.pop() for _ in range(count)) if depth]
