# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Documents that lie outside the folder of the site, and links that lead to them."""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

from . import api

REPOSITORY = Path(__file__).resolve().parents[3]
SITE = REPOSITORY / 'docs' / 'en'
GENERATED = SITE / 'generated'
# File of the repository -> page of the site, within `generated`.
PROJECT = {
    'CHANGELOG.md': 'project/changelog.md',
    'CONTRIBUTING.md': 'project/contributing.md',
    'SECURITY.md': 'project/reporting.md',
}
LINK = re.compile(r'(\]\()([^()\s:#]+)((?:#[^()\s]*)?\))')


def pages() -> dict[str, str]:
    """Write the pages of the project.

    Returns:
        dict[str, str]: File name -> text.
    """
    return {
        Path(page).name: with_links_from(REPOSITORY / file, page)
        for file, page in PROJECT.items()
    }


def with_links_from(document: Path, page: str) -> str:
    """Read a document, with links as they are from another place.

    Args:
        document (Path): A file of the repository.
        page (str): Where it will lie within ``generated``.

    Returns:
        str: Its text.
    """
    return moved(document.read_text(), document.parent, (GENERATED / page).parent)


def moved(text: str, before: Path, now: Path) -> str:
    """Write the links of a text anew.

    Args:
        text (str): A text in Markdown.
        before (Path): Folder that its links are relative to.
        now (Path): Folder that they are to be relative to.

    Returns:
        str: The text; what has a page of the site is linked there.
    """

    def link(match: re.Match[str]) -> str:
        target = _on_the_site(Path(os.path.normpath(before / match[2])))
        return match[1] + os.path.relpath(target, now) + match[3]

    return LINK.sub(link, text)


def _on_the_site(file: Path) -> Path:
    """The page that shows a file, or the file where none does."""
    path = file.relative_to(REPOSITORY).as_posix()
    if readme := re.fullmatch(r'configs/fakd/(\w+)(/README\.md)?', path):
        return GENERATED / 'configs' / f'{readme[1]}.md'
    if path == 'configs/fakd':
        return GENERATED / 'configs' / 'index.md'
    if path == 'README.md':
        return SITE / 'index.md'
    if path in PROJECT:
        return GENERATED / PROJECT[path]
    name = api.class_of(path)
    return GENERATED / 'api' / f'{name}.rst' if name else file


def _read(app: Any, page: str, source: list[str]) -> None:
    if not page.startswith('generated/'):
        folder = (SITE / page).parent
        source[0] = moved(source[0], folder, folder)


def setup(app: Any) -> dict[str, Any]:
    """Let links of all pages lead to the pages of this extension."""
    app.connect('source-read', _read)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
