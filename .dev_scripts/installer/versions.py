# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Versions: what is tested together, what is asked for, what lies within bounds."""

import operator
import re
from collections.abc import Sequence
from typing import Optional

from .common import REQUIREMENTS

# The Pythons each constraints file is for, requirements/constraints-torch*.txt.
TORCH_SETS = {'2.11': ((3, 10), (3, 11), (3, 12)), '2.1': ((3, 9), (3, 10), (3, 11))}
_HOLDS = {'==': operator.eq, '>=': operator.ge, '<': operator.lt}


def release(version: str) -> tuple[int, ...]:
    """Read the numbers of a version.

    Args:
        version (str): For example ``'2.11.0+cu130'``.

    Returns:
        tuple[int, ...]: For example (2, 11, 0).
    """
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def parse_requirement(line: str) -> Optional[tuple[str, list[tuple[str, str]]]]:
    """Read a line of a requirements file. Markers are left out.

    Args:
        line (str): The line.

    Returns:
        tuple[str, list[tuple[str, str]]] | None: The name and ``(operator, version)``
        pairs; None for comments, options and empty lines.
    """
    line = line.split('#')[0].split(';')[0].strip()
    match = re.match(r'([A-Za-z0-9._-]+)\s*(.*)', line)
    if not match or line.startswith('-'):
        return None
    name = re.sub(r'[-_.]+', '-', match.group(1)).lower()
    return name, re.findall(r'(==|>=|<)\s*([^,\s]+)', match.group(2))


def read_requirements(*names: str) -> dict[str, list[tuple[str, str]]]:
    """Read files in ``requirements/``.

    Args:
        *names (str): Their names.

    Returns:
        dict[str, list[tuple[str, str]]]: Normalised names of packages ->
        ``(operator, version)`` pairs.
    """
    lines = [
        line for n in names for line in (REQUIREMENTS / n).read_text().splitlines()
    ]
    return dict(filter(None, map(parse_requirement, lines)))


def satisfies(version: str, specifiers: Sequence[tuple[str, str]]) -> bool:
    """Tell whether a version lies within bounds.

    Args:
        version (str): The version.
        specifiers (Sequence[tuple[str, str]]): ``(operator, version)`` pairs.

    Returns:
        bool: Whether it does.
    """

    def padded(text: str) -> tuple[int, ...]:
        return (*release(text), *(0,) * 8)[:8]

    return all(_HOLDS[sign](padded(version), padded(v)) for sign, v in specifiers)
