# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Load checkpoints of MMEngine without running what a stranger put into them."""

from __future__ import annotations

import collections
import json
import logging
import os
import pickle
import pickletools
import re
import shlex
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmfakd.messages import printable
from mmfakd.version import parse_version

from .config_literals import find_risk
from .deep_tuples import nests_tuples_deeply
from .nesting import find_excess, usual_recursion_limit
from .no_checkpoint import NoCheckpoint
from .refused_error import RefusedError
from .restricted_pickle import RestrictedPickle, checkpoint_globals
from .risky_names import drop_risky_names
from .safetensors_file import is_safetensors, read_safetensors

# What the two formats of torch.save begin with: a zip archive, or the pickled
# magic number of the format before torch 1.6 (OpenMMLab's model zoos still use it).
_ZIP_START = b'PK\x03\x04'
_LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
# Magic number, version, system, content, storage keys.
_LEGACY_PICKLES = 5
# In the words of torch.
_OTHER_FORMAT = re.compile(r'TorchScript|legacy \.tar')
# Times its own size that an archive may unpack to.
_MOST_UNPACKED = 20


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load`` read MMEngine's own checkpoints under ``weights_only``.

    Since torch 2.6 ``weights_only`` is the default, and MMEngine 0.10 can no
    longer resume from what it has saved, because its message hub pickles
    ``HistoryBuffer`` objects (upstream thread
    https://github.com/open-mmlab/mmengine/issues/1650). Stand-ins for that class, for
    the numpy names in it (those of numpy 1, too) and for ``getattr`` are put on torch's
    list (see :func:`~mmfakd.compat.restricted_pickle.checkpoint_globals`). Everything
    else stays refused. Before torch 2.6 nothing is changed: there MMEngine reads its
    files as it always did, and :func:`load_checkpoint_file` keeps the same list itself.
    """
    import torch

    if parse_version(torch.__version__) >= (2, 6):
        # Not by add_safe_globals, where torch still has this table: who has put numpy's
        # own names there, as is advised against the same error, would get now these
        # and now those.
        table = getattr(torch._weights_only_unpickler, '_get_allowed_globals', None)
        if table is not None:
            table().update(checkpoint_globals())
            return
        torch.serialization.add_safe_globals(
            [(value, name) for name, value in checkpoint_globals().items()]
        )


def _restricted_load(path: Path, map_location: Any, mmap: bool) -> Any:
    """Read a file by the list of allowed names, on any torch."""
    import torch

    # The older format cannot be mapped.
    options: Any = dict(map_location=map_location)
    options.update(mmap=mmap and zipfile.is_zipfile(path))

    if parse_version(torch.__version__) >= (2, 6):
        allow_mmengine_checkpoints()
        if path.suffix == '.safetensors':
            # By its name torch 2.14 takes it for what it is not.
            with path.open('rb') as file:
                return torch.load(file, weights_only=True, map_location=map_location)
        return torch.load(str(path), weights_only=True, **options)
    # There `weights_only` accepts no further names, and TorchScript archives go to
    # torch.jit.load, whatever the pickle module.
    if zipfile.is_zipfile(path):
        archive = torch._C.PyTorchFileReader(str(path))
        if torch.serialization._is_torchscript_zip(archive):
            raise RefusedError('it is a TorchScript archive')
    return torch.load(str(path), pickle_module=RestrictedPickle, **options)


def _find_damage(path: Path) -> str | None:
    """Tell whether the pickles of a file are no longer as they were written, and why.

    A name that is cut short or has changed looks like an unknown one. Nothing is
    unpickled here.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                try:
                    if entry.filename.endswith('.pkl'):
                        archive.read(entry)
                except zipfile.BadZipFile:
                    return f'a checksum in it does not fit ({entry.filename})'
                except (NotImplementedError, RuntimeError) as error:
                    return f'{error} ({entry.filename})'
        return None
    with path.open('rb') as file:
        try:
            for _ in range(_LEGACY_PICKLES):
                collections.deque(pickletools.genops(file), maxlen=0)
        except Exception:
            return 'its end is missing'
    return None


def _refuse_deep_tuples(path: Path) -> None:
    """Refuse a pickle that would overflow the stack while it is read."""
    deep = False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith('.pkl')]
            # What cannot be unpacked is told of by who reads it.
            with suppress(zipfile.BadZipFile, NotImplementedError, RuntimeError):
                deep = any(nests_tuples_deeply(archive.read(name)) for name in names)
    else:
        with path.open('rb') as file:
            deep = any(nests_tuples_deeply(file) for _ in range(_LEGACY_PICKLES))
    if deep:
        where = 'thousands of levels deep, or in millions of places'
        raise _refused(path, f'it nests tuples {where}')


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Tell by its beginning whether ``torch.save`` may have written a file.

    Args:
        path (str | os.PathLike): The file.

    Returns:
        bool: Whether it is a zip archive or of the format before torch 1.6. False for
        what cannot be opened.
    """
    try:
        with open(path, 'rb') as file:
            start = file.read(len(_LEGACY_START))
    except OSError:
        return False
    return start == _LEGACY_START or start.startswith(_ZIP_START)


def load_checkpoint_file(
    path: str | os.PathLike[str],
    map_location: Any = 'cpu',
    mmap: bool = False,
) -> dict[str, Any]:
    """Load a checkpoint from a local file, without running code from it.

    Only tensors, plain Python and numpy values and MMEngine's logs are read, on
    every version of torch (see :func:`allow_mmengine_checkpoints`). A text of a config
    in it that MMEngine would execute to read it is left out, with a warning.

    Args:
        path (str | os.PathLike): The file, as ``torch.save`` or safetensors wrote it.
        map_location (Any): Where the tensors go, as in :func:`torch.load`. Defaults
            to ``'cpu'``.
        mmap (bool): Whether tensors are read from the disk when they are first used,
            so that the rest of a large file is quick to see. Defaults to False.

    Returns:
        dict[str, Any]: A checkpoint of MMEngine (``meta``, ``state_dict``, ...) or a
        bare state dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated or not a checkpoint.
        pickle.UnpicklingError: If it holds anything that is not on the list.
        NoCheckpoint: If its content is not a dict, a TypeError and a ValueError.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = 'it is a folder' if path.is_dir() else 'there is no such file'
        raise FileNotFoundError(
            f'Cannot load checkpoint "{path}": {found} (absolute path: '
            f'{path.absolute()}). Give the path of a .pth or .safetensors file.'
        )
    if is_safetensors(path):
        try:
            checkpoint = read_safetensors(path, map_location)
        except ValueError as error:
            raise _broken(path, error) from error
    else:
        checkpoint = _load_torch_file(path, map_location, mmap)
    if not isinstance(checkpoint, dict):
        raise NoCheckpoint(
            f'Checkpoint "{path}" holds a {type(checkpoint).__name__}; expected a '
            "dict: a state dict, or a checkpoint with a 'state_dict'."
        )
    excess = find_excess(checkpoint)
    if excess:
        raise _refused(path, excess)
    # It needs MMEngine, which is not imported with this module.
    from .restored_types import restore_types

    try:
        restore_types(checkpoint)
    except RefusedError as error:
        raise _refused(path, error) from error
    _drop_what_is_risky(checkpoint, path)
    return checkpoint


def _broken(path: Path, reason: object) -> ValueError:
    text = (
        f'Checkpoint "{path}" is truncated or not a checkpoint '
        f'({path.stat().st_size} bytes; {reason}). Copy, download or write it again.'
    )
    return ValueError(printable(text))


def _refused(path: Path, reason: object) -> pickle.UnpicklingError:
    code = (
        f'import torch; m = torch.load({json.dumps(str(path), ensure_ascii=False)}, '
        'map_location="cpu", weights_only=False); '
        'm = m if hasattr(m, "state_dict") else m.get("state_dict") or m["model"]; '
        'torch.save(m.state_dict() if hasattr(m, "state_dict") else m, "weights.pth")'
    )
    text = (
        f'Checkpoint "{path}" is refused: {reason}. Only tensors, plain values and '
        "MMEngine's logs are loaded, because anything else can run code. If you trust "
        f'where the file is from, save its weights alone: python -c {shlex.quote(code)}'
    )
    return pickle.UnpicklingError(printable(text))


def _load_torch_file(path: Path, map_location: Any, mmap: bool) -> Any:
    with path.open('rb') as file:
        start = file.read(len(_LEGACY_START))
    if start.startswith(_ZIP_START):
        if not zipfile.is_zipfile(path):
            raise _broken(path, 'the end of its zip archive is missing')
        _refuse_bomb(path)
    elif start != _LEGACY_START:
        raise _broken(path, 'it does not begin as files of torch.save do')
    _refuse_deep_tuples(path)
    try:
        # To make a ConfigDict, MMEngine goes down level by level.
        with usual_recursion_limit():
            return _restricted_load(path, map_location, mmap)
    except RecursionError as error:
        raise _refused(path, 'its values are nested too deeply') from error
    except (EOFError, IndexError, UnicodeError, struct.error) as error:
        raise _broken(path, _find_damage(path) or repr(error)) from error
    except Exception as error:
        # torch wraps the reason into advice on how to load the file regardless.
        reason = str(error.__context__ or error).split('. Please')[0]
        reason = reason.partition('\n')[0].rstrip('.')
        if re.search('EOF|corrupt|byte size|PytorchStreamReader|hasRecord', reason):
            raise _broken(path, reason) from error
        if isinstance(error, pickle.UnpicklingError) or _OTHER_FORMAT.search(reason):
            damage = _find_damage(path)
            if damage:
                raise _broken(path, damage) from error
            raise _refused(path, reason) from error
        # A GPU or memory that is not there is none of the file's faults.
        if isinstance(error, RuntimeError) and re.search('(?i)cuda|memory', reason):
            raise
        damage = _find_damage(path) or f'{type(error).__name__}: {reason}'
        raise _broken(path, damage) from error


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive that unpacks to far more than it is; torch compresses none."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _broken(path, error) from error
    if unpacked > _MOST_UNPACKED * path.stat().st_size:
        raise _refused(path, f'it would unpack to {unpacked:,} bytes')


def _drop_what_is_risky(checkpoint: dict, path: Path) -> None:
    """Leave out what MMEngine's resume or inferencers would execute, or remove."""
    hub = checkpoint.get('message_hub')
    runtime = hub.get('runtime_info') if isinstance(hub, dict) else None
    places: list[tuple[str, Any, tuple[str, ...]]] = [
        ('meta', checkpoint.get('meta'), ('cfg', 'config')),
        ('runtime_info', runtime, ('cfg',)),
    ]
    for name, holder, keys in places:
        for key in keys if isinstance(holder, dict) else ():
            text = holder.get(key)
            risk = find_risk(text) if isinstance(text, str) else None
            if risk is not None:
                del holder[key]
                _warn(
                    f'{path}: the config in its {name}[{key!r}] is left out, as '
                    f'MMEngine would execute it: {risk}'
                )
    notes = runtime if isinstance(runtime, dict) else {}
    for key, value in drop_risky_names(notes).items():
        _warn(
            f'{path}: runtime_info[{key!r}] is left out, as a resumed training would '
            f'remove what it names, and it is no checkpoint of its own: {value!r:.200}'
        )


def _warn(text: str) -> None:
    from mmengine.logging import print_log

    print_log(printable(text), logger='current', level=logging.WARNING)
