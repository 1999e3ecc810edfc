# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether every link within the built site leads somewhere.

    cd docs/en && python -m _ext.check_links _build/html

Links to pages, to places in pages, to pictures, scripts and downloads. Addresses of
other sites are not asked for. The exit status is 1 if a link is dead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

ATTRIBUTES = ('href', 'src', 'data-target')


@cache
def read(page: Path) -> BeautifulSoup:
    """Read a page.

    Args:
        page (Path): The file.

    Returns:
        BeautifulSoup: Its elements.
    """
    return BeautifulSoup(page.read_text(encoding='utf-8'), 'html.parser')


@cache
def places(page: Path) -> set[str]:
    """Find what links into a page may name.

    Args:
        page (Path): The file.

    Returns:
        set[str]: Ids of its elements.
    """
    return {str(element['id']) for element in read(page).find_all(id=True)}


def dead_links(root: Path) -> Iterator[str]:
    """Follow all links.

    Args:
        root (Path): Folder of the site.

    Yields:
        str: Page and link, of each that leads nowhere.
    """
    for page in sorted(root.rglob('*.html')):
        for element in read(page).find_all(True):
            for name in ATTRIBUTES:
                link = element.get(name)
                if link and not _leads_somewhere(page, str(link)):
                    yield f'{page.relative_to(root)}: {link}'


def _leads_somewhere(page: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = page
    if parts.path:
        target = (page.parent / unquote(parts.path)).resolve()
    if not target.is_file():
        return False
    inner = unquote(parts.fragment)
    return not inner or target.suffix != '.html' or inner in places(target)


def main() -> None:
    """Name the dead links.

    Raises:
        SystemExit: With status 1 if there are any.
    """
    root = Path(sys.argv[1]).resolve()
    count = sum(1 for _ in root.rglob('*.html'))
    dead = list(dead_links(root))
    print('\n'.join([*dead, f'{count} pages, {len(dead)} dead links']))
    sys.exit(bool(dead) or not count)


if __name__ == '__main__':
    main()
