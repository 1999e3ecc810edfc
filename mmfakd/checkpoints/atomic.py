# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# What a file is called until it is complete.
PART = '.part'


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[str]:
    """Write a file under a temporary name in the same folder.

    Once it is written it is flushed to the disk and renamed. Whenever the process is
    killed, either an older file or the new one is there.

    Source: ``rename`` of POSIX, which replaces a file atomically.

    Args:
        path (str | os.PathLike): The file.

    Yields:
        str: The name to write to. After an error that file is removed.
    """
    part = f'{path}{PART}'
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
