# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What checkpoints of MMEngine are made of, and an unpickler of that alone."""

import collections
import pickle
from typing import Any

from .refused_error import RefusedError


def _empty_bytes() -> bytes:
    """``bytes()``, as protocol 2 has empty ones; others are encoded texts there."""
    return b''


def _rebuild_subclass(func: Any, new_type: Any, args: Any, state: Any) -> Any:
    """Rebuild a tensor of another class, in place of torch's function for that.

    torch's own calls whatever it is given, and sets any state on what that returns.
    """
    import torch
    from torch._tensor import _rebuild_from_type_v2

    known = [f for name, f in vars(torch._utils).items() if name.startswith('_rebuild')]
    if not any(func is f for f in known):
        raise RefusedError('a tensor is rebuilt by no function of torch')
    if not (isinstance(new_type, type) and issubclass(new_type, torch.Tensor)):
        raise RefusedError('a tensor is rebuilt as another class')
    return _rebuild_from_type_v2(func, new_type, args, state)


def checkpoint_globals() -> dict[str, Any]:
    """Names a checkpoint of MMEngine holds besides torch's own, and their meaning.

    All but ``ConfigDict`` are stand-ins: each is safe whatever a pickle calls it with,
    as numpy's and MMEngine's own are not. The numpy names are those of numpy 1 and
    numpy 2, whichever is installed.
    """
    from mmengine.config import ConfigDict

    from .checkpoint_array import CheckpointArray, reconstruct, scalar
    from .checkpoint_dtype import CheckpointDtype
    from .checkpoint_history import CheckpointHistory, statistics_getattr

    names = {
        'mmengine.logging.history_buffer.HistoryBuffer': CheckpointHistory,
        # Where a data set's metainfo has a dict in it.
        'mmengine.config.config.ConfigDict': ConfigDict,
        'builtins.getattr': statistics_getattr,
        'builtins.bytes': _empty_bytes,
        'torch._tensor._rebuild_from_type_v2': _rebuild_subclass,
        'numpy.ndarray': CheckpointArray,
        'numpy.dtype': CheckpointDtype,
    }
    for core in ('numpy.core', 'numpy._core'):
        names[f'{core}.multiarray._reconstruct'] = reconstruct
        names[f'{core}.multiarray.scalar'] = scalar
    return names


def _built_types() -> set[type]:
    """Those whose state a pickle may set; that of a class is everybody's."""
    import torch

    own = {value for value in checkpoint_globals().values() if isinstance(value, type)}
    return own | {torch.Tensor, torch.nn.Parameter, collections.OrderedDict}


# The one that is written in Python, whose steps can be replaced.
_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _RestrictedUnpickler(_PythonUnpickler):
    """Unpickler for torch before 2.6, which knows the allowed names only."""

    dispatch = dict(_PythonUnpickler.dispatch)

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

    def load_build(self) -> None:
        """Set the state of an object, if it is of a type that may have one."""
        kind = type(self.stack[-2])
        if kind not in _built_types():
            raise RefusedError(f'Setting the state of a {kind.__name__}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


class RestrictedPickle:
    """The part of a pickle module that ``torch.load`` uses."""

    Unpickler = _RestrictedUnpickler
    load = staticmethod(lambda file, **kw: _RestrictedUnpickler(file, **kw).load())
