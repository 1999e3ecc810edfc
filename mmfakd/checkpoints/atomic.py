# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mmfakd.model_zoo.outputs import explain_unwritten

# What a file is called until it is complete.
PART = '.part'


@contextmanager
def whole_file(
    path: str | os.PathLike[str], size: int | None = None, then: str = ''
) -> Iterator[str]:
    """Write a file under a temporary name in the same folder.

    Once it is written it is flushed to the disk and renamed. Whenever the process is
    killed, either an older file or the new one is there. Folders that are missing are
    made. Links of either name, which may be somebody else's, are replaced, and not
    followed.

    Source: ``rename`` of POSIX, which replaces a file atomically.

    Args:
        path (str | os.PathLike): The file.
        size (int, optional): Its bytes, for what is said if there is no room.
        then (str): What is to be done once there is.

    Yields:
        str: The name to write to, a file that is empty. After an error it is removed.

    Raises:
        OSError: If the file cannot be written; what was there before is untouched.
    """
    part = f'{path}{PART}'
    kept = ' Files that were there before are untouched.'
    with explain_unwritten(path, size, kept, then):
        os.makedirs(osp.dirname(path) or '.', exist_ok=True)
        # What a killed process left, or a link that leads elsewhere.
        if osp.lexists(part):
            os.remove(part)
        # Libraries would say in words of their own, or not at all, that it fails.
        open(part, 'xb').close()
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
