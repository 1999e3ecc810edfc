# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that a command writes: none that it reads, and where it can."""

from __future__ import annotations

import ast
import errno
import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def check_outputs(
    force: bool, outs: Iterable[str | None], sources: Iterable[str | None] = ()
) -> None:
    """Refuse to overwrite files, and to begin what could not be written.

    Args:
        force (bool): Whether files may be overwritten that are there.
        outs (Iterable[str, optional]): The files to write.
        sources (Iterable[str, optional]): What the command reads, which is never
            overwritten. Addresses and names of model zoos are no files.

    Raises:
        FileExistsError: If one exists that must not be overwritten.
        OSError: If one cannot be written.
    """
    read = {osp.realpath(osp.expanduser(source)) for source in sources if source}
    for path in filter(None, outs):
        if osp.realpath(path) in read:
            raise FileExistsError(
                f'{path} is a file that this command reads, and would be lost; choose '
                'another name. --force does not overwrite it.'
            )
        if osp.exists(path) and not force:
            raise FileExistsError(
                f'{path} exists; choose another name, or give --force.'
            )
        check_writable(path)


def check_writable(path: str) -> None:
    """See, before anything else is done, that a file can be written.

    Nothing is left behind. A folder that is missing is looked for further up.

    Args:
        path (str): The file. An address is not looked at.

    Raises:
        OSError: If it cannot be written.
    """
    if '://' in path:
        return
    folder = osp.dirname(osp.abspath(path))
    with explain_unwritten(path):
        if osp.isdir(path):
            raise IsADirectoryError(errno.EISDIR, 'It is a folder', path)
        while not osp.lexists(folder):
            folder = osp.dirname(folder)
        try:
            # The rights alone do not tell of file systems that are read-only or full.
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, folder) from error


@contextmanager
def explain_unwritten(
    path: str | os.PathLike[str],
    size: int | None = None,
    kept: str = '',
    then: str = '',
) -> Iterator[None]:
    """Say which file could not be written, and what to do.

    Args:
        path (str | os.PathLike): The file.
        size (int, optional): Its bytes, where they are known.
        kept (str): What is said of files that were there. Defaults to nothing.
        then (str): What to do once there is room. Defaults to nothing.

    Yields:
        None: While it is written.

    Raises:
        OSError: In place of one of the system that names no other file; of its class,
            with its ``errno``.
    """
    whole = osp.abspath(path)
    try:
        yield
    except OSError as error:
        names = [n for n in (error.filename, error.filename2) if n is not None]
        # Its folders, and the name that it has until it is complete, begin alike.
        own = any(f'{whole}.part'.startswith(osp.abspath(str(n))) for n in names)
        if not error.strerror or (names and not own):
            raise
        told = type(error)(_unwritten(error, path, size, kept, then))
        # Not given as well, which would be printed as `[Errno 28] ...`.
        told.errno = error.errno
        raise told from error


def _unwritten(
    error: OSError,
    path: str | os.PathLike[str],
    size: int | None,
    kept: str,
    then: str,
) -> str:
    of_size = '' if size is None else f' ({size / 1e6:.1f} MB)'
    text = f'{path}{of_size} could not be written: {error.strerror}.{kept}'
    advice = 'Choose another folder, or change the rights of this one'
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = 'Make room or choose another folder'
        with suppress(OSError):
            free = shutil.disk_usage(osp.dirname(path) or '.').free
            text += f' {free / 1e6:.1f} MB are free there.'
    return f'{text} {advice}{then}.'


def check_config_name(path: str | None) -> None:
    """Refuse a name under which nothing would read a config.

    Args:
        path (str, optional): The config to write.

    Raises:
        ValueError: If it does not end in ``.py``.
    """
    if path and not path.endswith('.py'):
        raise ValueError(f'{path}: a config is a Python file; name it {path}.py.')


def config_sources(config: str) -> list[str]:
    """List the files that a config is made of.

    Args:
        config (str): Path of a config file.

    Returns:
        list[str]: It, and what it inherits, by ``_base_`` or by ``read_base``. Of a
        config that cannot be read, as far as it can.
    """
    found: list[str] = []
    waiting = [config]
    while waiting:
        file = waiting.pop()
        if file not in found and osp.isfile(file):
            found.append(file)
            # Who reads the config says what is wrong with it.
            try:
                waiting += _bases(file)
            except Exception:
                continue
    return found


def _bases(file: str) -> Iterator[str]:
    from mmengine.config import Config

    if not file.endswith('.py') or not Config._is_lazy_import(file):
        for base in Config._get_base_files(file):
            yield Config._get_cfg_path(base, file)[0]
        return
    for name in Config._get_base_modules(ast.parse(Path(file).read_text()).body):
        level = len(name) - len(name.lstrip('.'))
        # Those of packages are nobody's to overwrite.
        if level:
            path = f'{name[level:].replace(".", "/")}.py'
            yield osp.join(osp.dirname(file), *['..'] * (level - 1), path)
