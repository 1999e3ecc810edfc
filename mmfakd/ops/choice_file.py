# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The file that keeps what was chosen, from one process to the next."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


class ChoiceFile:
    """Keeps choices in a JSON file, with the versions that they hold for.

    Choices of other versions count as none. The file is replaced as a whole, and may be
    deleted at any time.

    Args:
        path (Path, optional): The file. Defaults to None, for ``ways.json`` in the
            folder that ``MMFAKD_CACHE_DIR`` names, or in ``mmfakd`` of the user's
            cache.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        # Whether what was chosen last is in the file.
        self.is_kept = True
        self._choices: dict[str, str] | None = None

    @property
    def path(self) -> Path:
        """Path: The file."""
        if self._path is not None:
            return self._path
        folder = os.environ.get('MMFAKD_CACHE_DIR')
        return (Path(folder) if folder else _user_cache()) / 'ways.json'

    def get(self, label: str) -> str | None:
        """Look a choice up.

        Args:
            label (str): Operation, device and inputs.

        Returns:
            str | None: The way, if it was chosen with these versions.
        """
        if self._choices is None:
            self._choices = self._read()
        return self._choices.get(label)

    def put(self, label: str, way: str) -> None:
        """Keep a choice.

        Args:
            label (str): Operation, device and inputs.
            way (str): The way.
        """
        # Others may have written meanwhile.
        self._choices = {**(self._choices or {}), **self._read(), label: way}
        content = dict(versions=versions(), choices=self._choices)
        part = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                'w', dir=self.path.parent, suffix='.part', delete=False
            ) as file:
                part = file.name
                json.dump(content, file, indent=1)
            os.replace(part, self.path)
            self.is_kept = True
        except OSError as error:
            self.is_kept = False
            if part is not None:
                with suppress(OSError):
                    os.remove(part)
            warnings.warn(
                f'What was chosen by measurement cannot be kept ({error}); the next '
                'process measures again. MMFAKD_CACHE_DIR names another folder.'
            )

    def _read(self) -> dict[str, str]:
        try:
            content: Any = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            warnings.warn(f'{self.path} cannot be read ({error}), and counts as empty.')
            return {}
        if not isinstance(content, dict) or content.get('versions') != versions():
            return {}
        choices = content.get('choices')
        found = choices.items() if isinstance(choices, dict) else ()
        return {label: way for label, way in found if isinstance(way, str)}


def _user_cache() -> Path:
    cache = os.environ.get('XDG_CACHE_HOME')
    if cache:
        return Path(cache) / 'mmfakd'
    try:
        return Path.home() / '.cache' / 'mmfakd'
    except RuntimeError:
        # A container may run as a number that has no home.
        return Path(tempfile.gettempdir()) / 'mmfakd'


def versions() -> dict[str, str | None]:
    """Tell what a choice depends on beside the inputs.

    Returns:
        dict[str, str | None]: Library -> version; of the ways a checksum of their code.
    """
    try:
        from triton import __version__ as triton
    except ImportError:
        triton = None
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    code = sorted(Path(__file__).parent.glob('*.py'))
    return dict(
        ways=f'{zlib.crc32(b"".join(file.read_bytes() for file in code)):08x}',
        torch=torch.__version__,
        cuda=torch.version.cuda or torch.version.hip,
        cudnn=None if cudnn is None else str(cudnn),
        triton=triton,
    )
