# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pages that are written when the site is built, into the folder ``generated``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import api, commands, configs, documents

FOLDER = 'generated'
ROOMS = {
    'api': api.pages,
    'commands': commands.pages,
    'configs': configs.pages,
    'project': documents.pages,
}


def write_pages(source: Path) -> None:
    """Write the pages; those that stayed as they were keep their date.

    Args:
        source (Path): The folder of ``conf.py``.
    """
    folder = source / FOLDER
    pages = {
        folder / room / name: text
        for room, write in ROOMS.items()
        for name, text in write().items()
    }
    for file in folder.rglob('*'):
        if file.is_file() and file not in pages:
            file.unlink()
    for file, text in pages.items():
        if file.is_file() and file.read_text() == text:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def setup(app: Any) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect('builder-inited', lambda app: write_pages(Path(app.srcdir)))
    return dict(parallel_read_safe=True, parallel_write_safe=True)
