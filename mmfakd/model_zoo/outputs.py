# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that a command writes: none that it reads, and where it can."""

from __future__ import annotations

import errno
import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


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
        FileExistsError: If one exists that must not be overwritten, or two are one.
        OSError: If one cannot be written.
    """
    written: dict[str, str] = {}
    read = {osp.realpath(osp.expanduser(source)) for source in sources if source}
    for path in filter(None, outs):
        if osp.realpath(path) in read:
            raise FileExistsError(
                f'{path} is a file that this command reads, and would be lost; choose '
                'another name. --force does not overwrite it.'
            )
        if other := written.get(osp.realpath(path)):
            raise FileExistsError(
                f'{path} is to be written twice, as {other} is the same file; give '
                'each a name of its own.'
            )
        written[osp.realpath(path)] = path
        _refuse_device(path)
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
        _refuse_device(path)
        if osp.isdir(path):
            raise IsADirectoryError(errno.EISDIR, 'It is a folder', path)
        while not osp.lexists(folder):
            folder = osp.dirname(folder)
        try:
            # The rights alone do not tell of file systems that are read-only or full.
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, folder) from error


def _refuse_device(path: str) -> None:
    """Refuse what a file that is renamed would take away, such as ``/dev/null``."""
    special = osp.exists(path) and not (osp.isfile(path) or osp.isdir(path))
    folder = osp.realpath(osp.dirname(osp.abspath(path)))
    # There `stdout` is a link, to a file where the output goes to one.
    if special or folder == '/dev' or folder.startswith('/proc/'):
        raise FileExistsError(
            f'{path} is a device or a pipe, and a file would take its place; give the '
            'name of a file.'
        )


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
    if error.errno == errno.ENAMETOOLONG:
        advice = 'Choose a shorter name'
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
