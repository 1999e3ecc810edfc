# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Figures and words as one HTML file that needs no other."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from matplotlib.figure import Figure

from mmfakd.messages import printable

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figure { margin: 1rem 0; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right;
  border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
</style>
</head>
<body>
<h1>$title</h1>
$lead
$sections
</body>
</html>
""")


@dataclass
class Section:
    """A part of a page.

    Args:
        title (str): Its heading.
        caption (str): What is seen, paragraphs with an empty line between them.
        figure (Figure, optional): What is drawn.
        rows (Sequence[Sequence[str]]): A table, its heads first; none are fine.
    """

    title: str
    caption: str
    figure: Figure | None = None
    rows: Sequence[Sequence[str]] = ()


def html_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Write a page.

    Args:
        title (str): Its title.
        lead (str): What stands below that.
        sections (Sequence[Section]): Its parts.

    Returns:
        str: HTML, with the figures in it.
    """
    page = _PAGE.substitute(
        title=escape(title),
        lead=_paragraphs(lead),
        sections='\n'.join(map(_section, sections)),
    )
    return printable(page)


def _section(section: Section) -> str:
    parts = [f'<h2>{escape(section.title)}</h2>']
    if section.figure is not None:
        file = io.BytesIO()
        section.figure.savefig(file, format='png', dpi=130)
        code = base64.b64encode(file.getvalue()).decode()
        alt = escape(section.title, quote=True)
        source = f'data:image/png;base64,{code}'
        parts.append(f'<figure><img alt="{alt}" src="{source}"></figure>')
    parts.append(_paragraphs(section.caption))
    if section.rows:
        parts.append(_table(section.rows))
    return '\n'.join(parts)


def _paragraphs(text: str) -> str:
    return '\n'.join(f'<p>{escape(part)}</p>' for part in text.split('\n\n') if part)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [
        ''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)
        for tag, row in zip(['th', *['td'] * (len(rows) - 1)], rows)
    ]
    return '<table>\n' + '\n'.join(f'<tr>{line}</tr>' for line in lines) + '\n</table>'
