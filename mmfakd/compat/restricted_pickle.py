# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What checkpoints of MMEngine are made of, and an unpickler of that alone."""

import collections
import pickle
from typing import Any

# HistoryBuffer stores its statistics as functions, which protocol 2 pickles as
# getattr(HistoryBuffer, name): these are the four names of MMEngine itself.
_STATISTICS = ('min', 'max', 'current', 'mean')


def _history_buffer_getattr(owner: Any, name: str, *default: Any) -> Any:
    """``getattr`` that knows ``HistoryBuffer``'s own statistics and nothing else.

    Args:
        owner (type): Must be MMEngine's ``HistoryBuffer``.
        name (str): ``'min'``, ``'max'``, ``'current'`` or ``'mean'``.
        *default: Must be absent.

    Returns:
        Callable: The statistics function.

    Raises:
        pickle.UnpicklingError: If anything else is asked for.
    """
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in _STATISTICS and not default:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'getattr({owner!r}, {name!r}) is not allowed: only '
        f'HistoryBuffer.{{{", ".join(_STATISTICS)}}} are'
    )


def checkpoint_globals() -> dict[str, Any]:
    """Names a checkpoint of MMEngine holds besides torch's own, and their meaning.

    The numpy names are those of numpy 1 and numpy 2, whichever is installed.
    """
    import numpy as np
    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer

    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    names = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        # Where a data set's metainfo has a dict in it.
        'mmengine.config.config.ConfigDict': ConfigDict,
        'builtins.getattr': _history_buffer_getattr,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    for core in ('numpy.core', 'numpy._core'):
        names[f'{core}.multiarray._reconstruct'] = reconstruct
        names[f'{core}.multiarray.scalar'] = scalar
    # Booleans, integers, floats, complex numbers and text; no object arrays.
    for code in '?bhilqBHILQefdFDSU':
        dtype_class = type(np.dtype(code))
        names[f'{dtype_class.__module__}.{dtype_class.__qualname__}'] = dtype_class
    return names


class RefusedError(pickle.UnpicklingError):
    """A checkpoint holds something that is not on the list."""


class _RestrictedUnpickler(pickle.Unpickler):
    """Unpickler for torch before 2.6, which knows the allowed names only."""

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up in the list instead of importing it."""
        import _codecs

        import torch

        allowed = {
            'builtins.set': set,
            'builtins.bytearray': bytearray,
            'builtins.complex': complex,
            'collections.Counter': collections.Counter,
            '_codecs.encode': _codecs.encode,
            'torch.device': torch.device,
            **torch._weights_only_unpickler._get_allowed_globals(),
            **checkpoint_globals(),
        }
        # Protocol 2 writes the name that the module had in Python 2.
        full_name = f'{module.replace("__builtin__", "builtins")}.{name}'
        if full_name in allowed:
            return allowed[full_name]
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise RefusedError(f'Unsupported global: {full_name}')


class RestrictedPickle:
    """The part of a pickle module that ``torch.load`` uses."""

    Unpickler = _RestrictedUnpickler
    load = staticmethod(lambda file, **kw: _RestrictedUnpickler(file, **kw).load())
