# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""State dicts in checkpoints of all kinds, and their keys in messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor

# Batches that a norm has seen. Old checkpoints have no counters, and norms need none.
COUNTER = 'num_batches_tracked'


def find_state_dict(checkpoint: Mapping, name: str = 'it') -> OrderedDict[str, Tensor]:
    """Find the weights in an mmengine, mdistiller, distillation or plain checkpoint.

    Args:
        checkpoint (Mapping): A state dict, or one under ``state_dict`` or ``model``.
        name (str): What messages call it.

    Returns:
        OrderedDict[str, Tensor]: Its tensors, of any shape, with the layout versions
        of the modules, as ``Module.state_dict`` attaches them.

    Raises:
        ValueError: If there are no weights.
    """
    inner = (checkpoint.get(key) for key in ('state_dict', 'model'))
    weights = next((part for part in inner if isinstance(part, dict)), checkpoint)
    state_dict = OrderedDict(
        (key, value) for key, value in weights.items() if isinstance(value, Tensor)
    )
    if not state_dict:
        raise ValueError(
            f'{name} holds no weights: expected a state dict, or one under '
            f"'state_dict' or 'model'; got the keys {some(map(str, checkpoint), 6)}."
        )
    # With it modules know older layouts of theirs; see torch's load_state_dict.
    state_dict._metadata = getattr(weights, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return state_dict


def some(
    names: Iterable[str], most: int = 4, separator: str = ', ', cut: str = ''
) -> str:
    """List names, not all of them if there are many.

    Args:
        names (Iterable[str]): The names.
        most (int): How many to list.
        separator (str): What stands between them.
        cut (str): What ends a list that is cut, before the number of the others.

    Returns:
        str: The list, or ``'none'``.
    """
    names = list(names)
    more = len(names) - most
    listed = separator.join(names[:most]) or 'none'
    return listed + (f'{cut} and {more} more' if more > 0 else '')
