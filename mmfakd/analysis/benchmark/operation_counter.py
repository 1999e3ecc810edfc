# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Operations that a step dispatches, and the bytes that they read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# They get memory, or say something about it, and run nothing.
_RUN_NOTHING = ('empty', 'new_empty', 'lift', 'promote_types', 'result_type', 'set_')
# They overwrite what they are given without a look at it.
_OVERWRITE = ('copy_', 'fill_', 'zero_', 'random_', 'normal_', 'uniform_')
# They look at some of what they are given.
_CHOOSE = ('index_select', 'gather', 'index', 'embedding')


@dataclass(frozen=True)
class Operation:
    """An operation that was dispatched.

    Attributes:
        name (str): Its name, ``'aten.add.Tensor'``.
        part (str): The part of the step that it belongs to.
        read (int): Bytes read, each number once.
        written (int): Bytes written.
        waits (bool): Whether the host waits for its result.
    """

    name: str
    part: str
    read: int
    written: int
    waits: bool


class OperationCounter(TorchDispatchMode):
    """Lists the operations that run while it is entered.

    What counts is what PyTorch hands to a device: neither views nor allocations, nor
    operations without a number to write. Some make more than one launch of it (a
    convolution's backward pass, a reduction in two stages), none makes less, so their
    number is that of launches up to those.

    Bytes are those of the operands, each number once, however often an operation
    comes back to it: what an operation that is well written moves through memory.
    Numbers that an expanded or overlapping view shows several times count once.

    Args:
        find_part (Callable): Says of an operation, by its name, which part of the step
            it belongs to, while it runs.

    Examples:
        >>> import torch
        >>> from mmfakd.analysis.benchmark.operation_counter import OperationCounter
        >>> x = torch.zeros(4, 8)
        >>> with OperationCounter() as counter:
        ...     y = x.t()[:, :2] + 1
        >>> [(o.name, o.read, o.written) for o in counter.operations]
        [('aten.add.Tensor', 64, 64)]
    """

    def __init__(self, find_part: Callable[[str], str] = lambda name: '') -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._find_part = find_part

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and note it."""
        kwargs = kwargs or {}
        # Views too, as gradients ask where they come from.
        part = self._find_part(str(func))
        out = func(*args, **kwargs)
        name = func._schema.name.partition('::')[2]
        waits = torch.Tag.data_dependent_output in func.tags
        if waits or not (_is_view(func) or name.startswith(_RUN_NOTHING)):
            read, written = _traffic(func, name, args, kwargs, out)
            if written or waits:
                operation = Operation(str(func), part, read, written, waits)
                self.operations.append(operation)
        return out


def count_bytes(tensor: Tensor) -> int:
    """Count the bytes that a tensor shows.

    Args:
        tensor (Tensor): The tensor, perhaps a view that shows numbers several times.

    Returns:
        int: Bytes of different numbers.
    """
    if not tensor.numel() or tensor.layout != torch.strided:
        return tensor.numel() * tensor.element_size()
    axes = [(n, s) for n, s in zip(tensor.shape, tensor.stride()) if s]
    shown, span = 1, 1
    for length, stride in axes:
        shown *= length
        span += (length - 1) * stride
    return min(shown, span) * tensor.element_size()


def _traffic(
    func: Any, name: str, args: tuple, kwargs: dict, out: Any
) -> tuple[int, int]:
    """Bytes that an operation reads and writes."""
    read = written = 0
    # Given as input twice, a tensor is read once.
    seen: set[int] = set()
    arguments = func._schema.arguments
    named = {**dict(zip((a.name for a in arguments), args)), **kwargs}
    for argument in arguments:
        alias = argument.alias_info
        changed = alias is not None and alias.is_write
        overwritten = changed and (argument.kwarg_only or name.endswith(_OVERWRITE))
        for tensor in _tensors(named.get(argument.name)):
            size = count_bytes(tensor)
            written += size * changed
            read += size * (not overwritten and id(tensor) not in seen)
            seen.add(id(tensor))
    results = sum(count_bytes(t) for t in _tensors(out) if id(t) not in seen)
    if name in _CHOOSE:
        read = min(read, results + sum(map(count_bytes, _tensors(args[1:]))))
    return read, written + results


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _is_view(func: Any) -> bool:
    """Whether an operation gives back what it got, and changes nothing."""
    aliases = [a.alias_info for a in func._schema.arguments if a.alias_info is not None]
    returned = any(r.alias_info is not None for r in func._schema.returns)
    return returned and not any(alias.is_write for alias in aliases)
