# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Draw the Mermaid diagrams of docs/en, for the site.

    cd docs/en && python -m _ext.draw_diagrams [--mmdc COMMAND] [--browser CHROMIUM]

Hosting services of repositories draw the blocks themselves; the site shows the pictures
in docs/en/figures/diagrams, so that it needs no script from elsewhere. They are named
after what they show: a block that was changed has no picture until this has been run,
and the site is not built without. Node.js is needed; what it needs is fetched by npx.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import tempfile
from pathlib import Path

from .diagrams import BLOCK, LOOKS, PICTURES, picture

REPOSITORY = Path(__file__).resolve().parents[3]
THEMES = dict(zip(LOOKS, ('default', 'dark')))


def diagrams() -> list[str]:
    """Find the diagrams of all pages.

    Returns:
        list[str]: Their text.
    """
    pages = sorted((REPOSITORY / 'docs' / 'en').rglob('*.md'))
    return [text for page in pages for text in BLOCK.findall(page.read_text())]


def draw(diagram: str, command: list[str], browser: str | None) -> None:
    """Draw a diagram in both looks, if it has not been drawn.

    Args:
        diagram (str): Its text.
        command (list[str]): Mermaid's command line.
        browser (str, optional): The browser that draws, in place of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, settings = Path(folder, 'diagram.mmd'), Path(folder, 'browser.json')
        source.write_text(diagram)
        options = dict(executablePath=browser) if browser else {}
        settings.write_text(json.dumps(dict(options, args=['--no-sandbox'])))
        for look, theme in THEMES.items():
            file = picture(diagram, look)
            if not file.is_file():
                files = ['-i', str(source), '-o', str(file), '-p', str(settings)]
                subprocess.run(
                    [*command, *files, '-t', theme, '-b', 'transparent'], check=True
                )


def main() -> None:
    """Draw what is missing, and remove pictures of what is no more."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--mmdc', default='npx --yes @mermaid-js/mermaid-cli')
    parser.add_argument('--browser', help='path of a Chromium to draw with')
    args = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    found = diagrams()
    for diagram in found:
        draw(diagram, shlex.split(args.mmdc), args.browser)
    wanted = {picture(diagram, look) for diagram in found for look in LOOKS}
    for file in set(PICTURES.glob('*.svg')) - wanted:
        file.unlink()


if __name__ == '__main__':
    main()
