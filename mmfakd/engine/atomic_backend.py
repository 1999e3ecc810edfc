# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Local files that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmfakd.checkpoints.atomic import whole_file


@register_backend('mmfakd_atomic', force=True)
class AtomicBackend(LocalBackend):
    """MMEngine's local backend, whose files replace older ones at once.

    See :func:`~mmfakd.checkpoints.atomic.whole_file`. It is for a training, which alone
    writes into its folders; SafeCheckpointHook removes what a killed one has left.
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
        then = ', then go on with --resume'
        whole = whole_file(filepath, len(obj), then, alone=True)
        with whole as part, open(part, 'wb') as file:
            file.write(obj)

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
