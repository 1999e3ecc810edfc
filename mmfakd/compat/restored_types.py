# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""numpy's own types in place of what stood for them while a file was read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from .checkpoint_array import CheckpointArray
from .checkpoint_dtype import CheckpointDtype
from .checkpoint_history import CheckpointHistory, Statistic
from .refused_error import RefusedError

_CLASSES = {
    CheckpointArray: np.ndarray,
    CheckpointDtype: np.dtype,
    CheckpointHistory: HistoryBuffer,
}
_LEAVES = (str, int, float, bool, bytes, type(None))
# By these an object tells numpy and torch where in memory its values are.
_MEMORY = {
    '__array__',
    '__array_interface__',
    '__array_struct__',
    '__cuda_array_interface__',
    '__dlpack__',
}

_Seen = dict[int, tuple[Any, Any]]


def restore_types(content: dict[Any, Any]) -> None:
    """Put numpy's own types back into what a file holds, in place.

    Args:
        content (dict): Not nested deeply.

    Raises:
        RefusedError: If it has an array of objects, or an object that says where in
            memory it is.
    """
    _restored(content, {})


def _restored(value: Any, seen: _Seen) -> Any:
    """Return a value, with what is in it restored, or what takes its place."""
    if type(value) in _LEAVES:
        return value
    if id(value) not in seen:
        # With the value itself, so that its number is not given anew.
        seen[id(value)] = value, value
        seen[id(value)] = value, _restored_itself(value, seen)
    return seen[id(value)][1]


def _restored_itself(value: Any, seen: _Seen) -> Any:
    if isinstance(value, type):
        return _CLASSES.get(value, value)
    if isinstance(value, CheckpointDtype):
        return value.dtype
    if isinstance(value, Statistic):
        raise RefusedError('it holds a statistics function outside of a log')
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise RefusedError('it holds an array of objects')
        return np.array(value) if isinstance(value, CheckpointArray) else value
    _restore_dict(getattr(value, '__dict__', {}), seen, attributes=True)
    if isinstance(value, dict):
        _restore_dict(value, seen, attributes=isinstance(value, ConfigDict))
    elif isinstance(value, (list, set)):
        items = _restored_list(value, seen)
        if items is not None:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(items)
    elif type(value) is tuple:
        items = _restored_list(value, seen)
        return value if items is None else tuple(items)
    return value


def _restored_list(values: Iterable[Any], seen: _Seen) -> list[Any] | None:
    """Return what takes the places of values, None if they keep them."""
    restored, changed = [], False
    for value in values:
        restored.append(_restored(value, seen))
        changed |= restored[-1] is not value
    return restored if changed else None


def _restore_dict(values: dict[Any, Any], seen: _Seen, attributes: bool) -> None:
    """Restore keys and values of a dict, which may be the attributes of an object."""
    if attributes and not _MEMORY.isdisjoint(values):
        raise RefusedError('an object in it says where in memory its values are')
    # MMEngine's own methods build what they yield.
    keys, items = list(dict.keys(values)), list(dict.values(values))
    restored = _restored_list(keys + items, seen)
    if restored is not None:
        values.clear()
        values.update(dict(zip(restored, restored[len(keys) :])))
