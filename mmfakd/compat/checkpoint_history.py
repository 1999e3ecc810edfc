# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's logs as files may have them."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from .refused_error import RefusedError

# HistoryBuffer stores its statistics as functions, which protocol 2 pickles as
# getattr(HistoryBuffer, name): these are the four names of MMEngine itself.
_STATISTICS = ('min', 'max', 'current', 'mean')


class Statistic:
    """A statistics function of ``HistoryBuffer``, as long as a file is being read.

    No file gets the function itself: ``current`` returns what any object has under a
    name, and torch calls what it is told to where it rebuilds a tensor.

    Args:
        name (str): Its name.
    """

    __slots__ = ('name',)

    def __init__(self, name: str) -> None:
        self.name = name


class CheckpointHistory(HistoryBuffer):
    """What a pickle gets where it asks for ``HistoryBuffer``.

    MMEngine's own makes arrays of whatever it is given, and numpy reads any memory for
    an object that says where (``__array_interface__``); it also keeps the statistics
    of a file for all of its class. This one takes a checked state once, and is
    MMEngine's own from then on.

    Raises:
        RefusedError: If it is given anything.
    """

    def __new__(cls, *given: Any) -> CheckpointHistory:
        """Make a log that is not yet read."""
        if given:
            raise RefusedError('HistoryBuffer is called with values')
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Take the content.

        Args:
            state (dict): As MMEngine writes it.

        Raises:
            RefusedError: If it is another one.
        """
        if type(state) is not dict:
            raise RefusedError('the state of a HistoryBuffer is no dict')
        checked = {key: _checked(key, value) for key, value in state.items()}
        super().__setstate__(checked)
        self.__class__ = HistoryBuffer  # type: ignore[assignment]


def _checked(key: Any, value: Any) -> Any:
    """Return a part of the state, if it is as MMEngine writes it."""
    if key == 'max_length' and type(value) is int:
        return value
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in 'biufc'
    if key in ('_log_history', '_count_history') and numbers:
        return np.array(value)
    methods = value.items() if type(value) is dict else [(None, None)]
    own = all(type(v) is Statistic and v.name == name for name, v in methods)
    if key == 'statistics_methods' and own:
        return {name: getattr(HistoryBuffer, name) for name in value}
    raise RefusedError(f'a HistoryBuffer has a {type(value).__name__} as {key!r:.40}')


def statistics_getattr(owner: Any, name: Any, *default: Any) -> Statistic:
    """``getattr`` that knows ``HistoryBuffer``'s own statistics and nothing else.

    Args:
        owner (type): Must be what the pickle has for ``HistoryBuffer``.
        name (str): ``'min'``, ``'max'``, ``'current'`` or ``'mean'``.
        *default: Must be absent.

    Returns:
        Statistic: What stands for the function.

    Raises:
        RefusedError: If anything else is asked for.
    """
    known = type(name) is str and name in _STATISTICS and not default
    if owner is CheckpointHistory and known:
        return Statistic(name)
    raise RefusedError(
        f'getattr({owner!r}, {name!r}) is not allowed: only '
        f'HistoryBuffer.{{{", ".join(_STATISTICS)}}} are'
    )
