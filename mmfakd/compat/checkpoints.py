# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Load checkpoints of MMEngine without running what a stranger put into them."""

import collections
import os
import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, Union

from mmfakd.version import parse_version

# HistoryBuffer stores its statistics as functions, which protocol 2 pickles as
# getattr(HistoryBuffer, name): these are the four names of MMEngine itself.
_STATISTICS = ('min', 'max', 'current', 'mean')

# What the two formats of torch.save begin with: a zip archive, or the pickled
# magic number of the format before torch 1.6 (OpenMMLab's model zoos still use it).
_ZIP_START = b'PK\x03\x04'
_LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


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


def _checkpoint_globals() -> dict[str, Any]:
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


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load`` read MMEngine's own checkpoints under ``weights_only``.

    Since torch 2.6 ``weights_only`` is the default, and MMEngine 0.10 can no
    longer resume from what it has saved, because its message hub pickles
    ``HistoryBuffer`` objects (upstream thread
    https://github.com/open-mmlab/mmengine/issues/1650). That class, the numpy
    names in it (those of numpy 1, too) and a stand-in for ``getattr`` that
    answers only for the statistics methods of ``HistoryBuffer`` are put on
    torch's list of safe globals. Everything else stays refused. Before torch 2.6
    nothing is changed: there MMEngine reads its files as it always did, and
    :func:`load_checkpoint_file` keeps the same list itself.
    """
    import torch

    if parse_version(torch.__version__) >= (2, 6):
        torch.serialization.add_safe_globals(
            [(value, name) for name, value in _checkpoint_globals().items()]
        )


class _Refused(pickle.UnpicklingError):
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
            **_checkpoint_globals(),
        }
        # Protocol 2 writes the name that the module had in Python 2.
        full_name = f'{module.replace("__builtin__", "builtins")}.{name}'
        if full_name in allowed:
            return allowed[full_name]
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise _Refused(f'Unsupported global: {full_name}')


class _RestrictedPickle:
    """The part of a pickle module that ``torch.load`` uses."""

    Unpickler = _RestrictedUnpickler
    load = staticmethod(lambda file, **kw: _RestrictedUnpickler(file, **kw).load())


def _restricted_load(path: Path, map_location: Any) -> Any:
    """Read a file by the list of allowed names, on any torch."""
    import torch

    if parse_version(torch.__version__) >= (2, 6):
        allow_mmengine_checkpoints()
        return torch.load(path, map_location=map_location, weights_only=True)
    # There `weights_only` accepts no further names, and TorchScript archives go to
    # torch.jit.load, whatever the pickle module.
    if zipfile.is_zipfile(path):
        archive = torch._C.PyTorchFileReader(str(path))
        if torch.serialization._is_torchscript_zip(archive):
            raise _Refused('it is a TorchScript archive')
    return torch.load(path, map_location=map_location, pickle_module=_RestrictedPickle)


def _is_complete(path: Path) -> bool:
    """Tell whether the pickles of a file in torch's older format have an end.

    A name cut short looks like an unknown one. Nothing is unpickled here.
    """
    if zipfile.is_zipfile(path):
        return True
    with path.open('rb') as file:
        try:
            # Magic number, version, system, content, storage keys.
            for _ in range(5):
                collections.deque(pickletools.genops(file), maxlen=0)
        except Exception:
            return False
    return True


def load_checkpoint_file(
    path: Union[str, 'os.PathLike[str]'], map_location: Any = 'cpu'
) -> dict[str, Any]:
    """Load a checkpoint from a local file, without running code from it.

    Only tensors, plain Python and numpy values and MMEngine's logs are read, on
    every version of torch (see :func:`allow_mmengine_checkpoints`).

    Args:
        path (str | os.PathLike): The file.
        map_location (Any): Where the tensors go, as in :func:`torch.load`. Defaults
            to ``'cpu'``.

    Returns:
        dict[str, Any]: A checkpoint of MMEngine (``meta``, ``state_dict``, ...) or a
        bare state dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated or not a checkpoint.
        pickle.UnpicklingError: If it holds anything that is not on the list.
        TypeError: If its content is not a dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = 'it is a folder' if path.is_dir() else 'there is no such file'
        raise FileNotFoundError(
            f'Cannot load checkpoint "{path}": {found} (absolute path: '
            f'{path.absolute()}). Give the path of a .pth file.'
        )

    def broken(reason: object) -> ValueError:
        return ValueError(
            f'Checkpoint "{path}" is truncated or not a checkpoint '
            f'({path.stat().st_size} bytes; {reason}). Copy, download or write it '
            'again.'
        )

    with path.open('rb') as file:
        start = file.read(len(_LEGACY_START))
    if start.startswith(_ZIP_START):
        if not zipfile.is_zipfile(path):
            raise broken('the end of its zip archive is missing')
    elif start != _LEGACY_START:
        raise broken('it does not begin as files of torch.save do')

    try:
        checkpoint = _restricted_load(path, map_location)
    except (pickle.UnpicklingError, RuntimeError) as error:
        # torch wraps the reason into advice on how to load the file regardless.
        reason = str(error.__context__ or error).split('. Please')[0].partition('\n')[0]
        if re.search('EOF|corrupt|byte size|PytorchStreamReader|hasRecord', reason):
            raise broken(reason) from error
        if isinstance(error, pickle.UnpicklingError) or 'TorchScript' in reason:
            if not _is_complete(path):
                raise broken('its end is missing') from error
            raise pickle.UnpicklingError(
                f'Checkpoint "{path}" is refused: {reason}. Only tensors, plain '
                "values and MMEngine's logs are loaded, because anything else can "
                'run code. If you trust where the file is from, save its weights '
                'alone: python -c "import torch; torch.save(torch.load('
                f"'{path}', map_location='cpu', weights_only=False)"
                "['state_dict'], 'weights.pth')\""
            ) from error
        raise
    except (EOFError, IndexError, UnicodeError, struct.error) as error:
        raise broken(repr(error)) from error

    if not isinstance(checkpoint, dict):
        raise TypeError(
            f'Checkpoint "{path}" holds a {type(checkpoint).__name__}; expected a '
            "dict: a state dict, or a checkpoint with a 'state_dict'."
        )
    return checkpoint
