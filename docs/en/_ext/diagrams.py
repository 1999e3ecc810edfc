# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Diagrams of pages, as the pictures that `draw_diagrams.py` drew."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

BLOCK = re.compile(r'^```mermaid\n(.*?)\n```$', re.MULTILINE | re.DOTALL)
PICTURES = Path(__file__).resolve().parents[1] / 'figures' / 'diagrams'
LOOKS = ('light', 'dark')


def picture(diagram: str, look: str) -> Path:
    """Say where the picture of a diagram lies.

    Args:
        diagram (str): What stands in its block.
        look (str): ``'light'`` or ``'dark'``.

    Returns:
        Path: The file, named after what it shows.
    """
    name = hashlib.sha256(diagram.strip().encode()).hexdigest()[:12]
    return PICTURES / f'{name}-{look}.svg'


class DrawnDiagrams(SphinxTransform):
    """Put pictures in the place of blocks of Mermaid's language."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        """Replace the blocks of a page."""
        for block in list(self.document.findall(nodes.literal_block)):
            if block.get('language') != 'mermaid':
                continue
            shown = nodes.container(classes=['diagram'])
            for look in LOOKS:
                file = picture(block.astext(), look)
                if not file.is_file():
                    logging.getLogger(__name__).warning(
                        '%s is missing: run `python -m _ext.draw_diagrams` in docs/en',
                        file.name,
                        location=block,
                    )
                uri = f'/figures/diagrams/{file.name}'
                classes = [f'only-{look}']
                shown += nodes.image(uri=uri, alt='diagram', classes=classes)
            block.replace_self(shown)


def setup(app: Any) -> dict[str, Any]:
    """Register the transform."""
    app.add_transform(DrawnDiagrams)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
