# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How mmfakd speaks: near names, tables, lines of progress.

Nothing here imports more than Python's own library.
"""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path

_START = time.monotonic()
# All but newline and tab: a terminal obeys those of a stranger's file. Halves of
# surrogates, which stand for bytes in names of files, cannot be written at all.
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]')


def printable(text: object) -> str:
    r"""Write control characters as their escapes, so that no terminal obeys them.

    Names in files, and names of files, may be a stranger's.

    Args:
        text (object): A text, or what has one, such as an error.

    Returns:
        str: The text, whose lines and tabs stay.

    Examples:
        >>> from mmfakd.messages import printable
        >>> print(printable('a\x1b[2Jb'))
        a\x1b[2Jb
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(text))


def near_names(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """Find the names that may have been meant, whatever their capitals.

    Args:
        name (str): A wrong name.
        known (Iterable[str]): The right ones.
        count (int): How many there may be.

    Returns:
        list[str]: The nearest first; none where none is near.
    """
    spelled = {known_name.lower(): known_name for known_name in known}
    near = get_close_matches(str(name).lower(), spelled, n=count, cutoff=0.4)
    return [spelled[match] for match in near]


def near_layers(name: str, layers: Sequence[str]) -> str:
    """List the layers of a model that may have been meant.

    Args:
        name (str): A wrong name of a layer.
        layers (Sequence[str]): The right ones.

    Returns:
        str: Ten names at most, in quotes, or ``'none'``.
    """
    # A wrong leaf under a right parent is the common slip: show its siblings.
    parent = name.rpartition('.')[0]
    siblings = [n for n in layers if n.rpartition('.')[0] == parent and n]
    listed = dict.fromkeys([*near_names(name, layers), *siblings])
    return quoted(list(listed)[:10])


def quoted(names: Iterable[str]) -> str:
    """List names in quotes.

    Args:
        names (Iterable[str]): The names.

    Returns:
        str: The list, or ``'none'``.
    """
    return ', '.join(map(repr, names)) or 'none'


def aligned(rows: Sequence[Sequence[str]], widest: int | None = None) -> str:
    """Write rows of text in columns.

    Args:
        rows (Sequence[Sequence[str]]): Rows of equal length, the heading first.
        widest (int, optional): Width that no column is made wider than for the sake
            of its longest cells.

    Returns:
        str: A line for each row.
    """
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    widths = [min(width, widest or width) for width in widths]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of text as a table in Markdown.

    Args:
        rows (Sequence[Sequence[str]]): Rows of equal length, the heading first.

    Returns:
        list[str]: A line for each row, and the rule below the heading. Within cells,
        bars are escaped and lines joined.
    """
    lines = [f'| {" | ".join(map(_cell, row))} |' for row in rows]
    return [lines[0], '|' + ' --- |' * len(rows[0]), *lines[1:]]


def _cell(text: str) -> str:
    return printable(' '.join(text.splitlines()).replace('|', r'\|'))


def documentation(page: str) -> str:
    """Say where a page of the documentation is for whoever reads this.

    Args:
        page (str): Its name, such as ``'own_data.md'``.

    Returns:
        str: In a checkout its path; elsewhere its address where the installed package
        has one, or else the name of what holds it.
    """
    path = f'docs/en/{page}'
    if (Path(__file__).resolve().parents[1] / path).is_file():
        return path
    with suppress(metadata.PackageNotFoundError):
        for entry in metadata.metadata('mmfakd').get_all('Project-URL') or []:
            label, _, address = entry.partition(', ')
            if label == 'Documentation':
                return f'{address}/{page}'
    return f"{path} in mmfakd's source archive"


def first_line(error: Exception) -> str:
    """Cut an error's message, which may go on for pages.

    Args:
        error (Exception): The error.

    Returns:
        str: The first line, or 300 characters of it, up to a word.
    """
    line = str(error).strip().partition('\n')[0]
    return textwrap.shorten(line, 300, placeholder=' ...')


def progress(text: str) -> None:
    """Say on standard error what a command is about to do.

    Args:
        text (str): A line.
    """
    seconds = time.monotonic() - _START
    print(f'[{seconds:4.0f} s] {printable(text)}', file=sys.stderr, flush=True)
