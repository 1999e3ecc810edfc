# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import fcntl
import glob
import os
import os.path as osp
import secrets
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from mmfakd.model_zoo.outputs import explain_unwritten

# How the name of a file ends until it is complete.
PART = '.part'
# Bytes of a name that leave room for two numbers and that ending within 255.
_LONGEST = 255 - len(f'.{0:08x}-{0:08x}{PART}')
_DAY = 86400.0
# For a part of its own, before one is taken without a lock.
_TRIES = 10


@contextmanager
def whole_file(
    path: str | os.PathLike[str],
    size: int | None = None,
    then: str = '',
    alone: bool = False,
) -> Iterator[str]:
    """Write a file under a temporary name in the same folder.

    Once it is written it is flushed to the disk and renamed. Whenever the process is
    killed, either an older file or the new one is there. Of several processes that
    write one file at a time each has a temporary name of its own, and the last one
    stays. Folders that are missing are made. Links of either name, which may be
    somebody else's, are replaced, and not followed.

    Source: ``rename`` of POSIX, which replaces a file atomically.

    Args:
        path (str | os.PathLike): The file.
        size (int, optional): Its bytes, for what is said if there is no room.
        then (str): What is to be done once there is.
        alone (bool): Whether no other process may write it meanwhile, as in the locked
            folders of a training. The temporary name is the file's with ``.part``,
            whatever the machine, so that the next training finds what a killed one has
            left. Defaults to False.

    Yields:
        str: The name to write to, a file that is empty. After an error it is removed.

    Raises:
        OSError: If the file cannot be written; what was there before is untouched.
    """
    kept = ' Files that were there before are untouched.'
    part_of = _only_part if alone else _own_part
    with explain_unwritten(path, size, kept, then):
        os.makedirs(osp.dirname(path) or '.', exist_ok=True)
        with part_of(path) as part:
            try:
                yield part
                with open(part, 'rb+') as file:
                    os.fsync(file.fileno())
                os.replace(part, path)
            except BaseException:
                with suppress(OSError):
                    os.remove(part)
                raise
    # The new name itself, where folders can be opened.
    with suppress(OSError):
        descriptor = os.open(osp.dirname(path) or '.', os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_open_file(path: str, file: IO) -> bool:
    """Tell whether a path still names an open file, or has been renamed or removed.

    Args:
        path (str): The path.
        file (IO): The open file.

    Returns:
        bool: Whether it does.
    """
    with suppress(FileNotFoundError):
        return osp.samestat(os.stat(path), os.fstat(file.fileno()))
    return False


@contextmanager
def _only_part(path: str | os.PathLike[str]) -> Iterator[str]:
    """Make the part of a file that no other process writes."""
    part = f'{path}{PART}'
    # What a killed process left, or a link that leads elsewhere.
    if osp.lexists(part):
        os.remove(part)
    # Libraries would say in words of their own, or not at all, that it fails.
    open(part, 'xb').close()
    yield part


@contextmanager
def _own_part(path: str | os.PathLike[str]) -> Iterator[str]:
    """Make a part that no other process has, locked while this one is at it.

    The lock, which ends with the process, tells others that it is not left over. Where
    there are no locks nothing is tidied up.
    """
    _remove_left(path)
    for left in reversed(range(_TRIES)):
        part = f'{_start_of_parts(path)}{_host()}-{secrets.token_hex(4)}{PART}'
        with _under_its_name(path, part), open(part, 'xb') as file:
            # Who tidies up may have been faster, or the file system tells nothing.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if is_open_file(part, file) or not left:
                yield part
                return
        with suppress(OSError):
            os.remove(part)


def _start_of_parts(path: str | os.PathLike[str]) -> str:
    """What the parts of a file begin with: its name, as far as there is room."""
    folder, name = osp.split(path)
    whole = os.fsencode(name)
    if len(whole) > _LONGEST:
        start = whole[: _LONGEST - 9].decode(errors='ignore')
        name = f'{start}-{zlib.crc32(whole):08x}'
    return osp.join(folder, f'{name}.')


def _host() -> str:
    return f'{zlib.crc32(socket.gethostname().encode()):08x}'


def _remove_left(path: str | os.PathLike[str]) -> None:
    """Remove parts of processes that are gone.

    Locks of other machines may not be seen here, and a container has a new name each
    time: what is theirs is left over after a day.
    """
    digits = '[0-9a-f]' * 8
    names = f'{glob.escape(_start_of_parts(path))}{digits}-{digits}{PART}'
    for part in glob.glob(names):
        own = f'.{_host()}-' in part
        # What is locked, is somebody else's, or is no file stays.
        with suppress(OSError):
            if not own and time.time() - osp.getmtime(part) < _DAY:
                continue
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(part, flags), 'wb') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(part)


@contextmanager
def _under_its_name(path: str | os.PathLike[str], part: str) -> Iterator[None]:
    """Let errors of the system name a file in place of its part."""
    try:
        yield
    except OSError as error:
        if str(error.filename) == part:
            error.filename = str(path)
        raise
