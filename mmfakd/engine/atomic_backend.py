# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Local files that are there as a whole or not at all."""

from __future__ import annotations

import os.path as osp
import shutil
from contextlib import suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.utils import mkdir_or_exist

from mmfakd.checkpoints.atomic import whole_file


@register_backend('mmfakd_atomic', force=True)
class AtomicBackend(LocalBackend):
    """MMEngine's local backend, whose files replace older ones at once.

    See :func:`~mmfakd.checkpoints.atomic.whole_file`.
    ``backend_args=dict(backend='mmfakd_atomic')`` selects it.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file.

        Args:
            obj (bytes): Its content.
            filepath (str | Path): Its path. Missing folders are made.

        Raises:
            OSError: If it cannot be written; an older file is untouched.
        """
        try:
            mkdir_or_exist(osp.dirname(filepath) or '.')
            with whole_file(filepath) as part, open(part, 'wb') as file:
                file.write(obj)
        except OSError as error:
            raise OSError(error.errno, _explain(error, filepath, len(obj))) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text file.

        Args:
            obj (str): Its content.
            filepath (str | Path): Its path. Missing folders are made.
            encoding (str): Its encoding.

        Raises:
            OSError: If it cannot be written; an older file is untouched.
        """
        self.put(obj.encode(encoding), filepath)


def _explain(error: OSError, path: str | Path, size: int) -> str:
    text = (
        f'{path} ({size / 1e6:.1f} MB) could not be written: {error.strerror}. Files '
        'that were there before are untouched.'
    )
    with suppress(OSError):
        free = shutil.disk_usage(osp.dirname(path) or '.').free
        text += f' {free / 1e6:.1f} MB are free there.'
    return f'{text} Make room or choose another folder, then go on with --resume.'
