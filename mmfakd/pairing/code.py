# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Parts of a config as Python code."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 88


class Name(str):
    """A name that stands in a config as it is, in place of a value."""


def as_code(value: Any) -> str:
    """Write a part of a config.

    Args:
        value (Any): Its value.

    Returns:
        str: The value as code.
    """
    if isinstance(value, Name):
        return str(value)
    if isinstance(value, Mapping):
        if not all(str(key).isidentifier() for key in value):
            items = (f'{key!r}: {as_code(item)}' for key, item in value.items())
            return f'{{{", ".join(items)}}}'
        arguments = (f'{key}={as_code(item)}' for key, item in value.items())
        return f'dict({", ".join(arguments)})'
    if isinstance(value, list):
        return f'[{", ".join(map(as_code, value))}]'
    return repr(value)


def entries(values: Mapping[str, Any], width: int) -> list[str]:
    """Write arguments, each on one line where it fits.

    Args:
        values (Mapping[str, Any]): Names and values.
        width (int): Columns that there are.

    Returns:
        list[str]: Lines of code.
    """
    lines = (item(value, width, f'{key}=') for key, value in values.items())
    return [line for found in lines for line in found]


def block(opening: str, lines: Sequence[str], end: str = ',') -> list[str]:
    """Write what stands within brackets.

    Args:
        opening (str): What comes first, with the opening bracket at its end.
        lines (Sequence[str]): What stands between the brackets.
        end (str): What follows the closing one. Defaults to a comma.

    Returns:
        list[str]: Lines of code.
    """
    closing = {'(': ')', '[': ']'}[opening[-1]]
    return [opening, *(f'    {line}' for line in lines), closing + end]


def comment(text: str, indent: str = '', width: int = WIDTH) -> list[str]:
    """Write a comment.

    Args:
        text (str): The text.
        indent (str): What its first line is indented by, further ones twice.
        width (int): Columns that there are.

    Returns:
        list[str]: Lines of code.
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=f'# {indent}',
        subsequent_indent=f'# {2 * indent}',
        break_long_words=False,
        break_on_hyphens=False,
    )


def item(value: Any, width: int, head: str = '') -> list[str]:
    """Write a value, on one line where it fits.

    Args:
        value (Any): The value.
        width (int): Columns that there are.
        head (str): What stands before it.

    Returns:
        list[str]: Lines of code, a comma at the end.
    """
    line = f'{head}{as_code(value)},'
    if len(line) <= width:
        return [line]
    if isinstance(value, Mapping) and all(str(key).isidentifier() for key in value):
        return block(f'{head}dict(', entries(value, width - 4))
    if isinstance(value, list):
        parts = (item(part, width - 4) for part in value)
        return block(f'{head}[', [line for part in parts for line in part])
    return [line]
