# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The version of mmfakd, and how versions are read; imports nothing else."""

import re

__version__ = '0.1.0'


def parse_version(text: str) -> tuple[int, ...]:
    """Read the release number of a version.

    Suffixes are dropped, so a pre-release counts as its release: a build such as
    ``2.1.0a0+git`` is a torch 2.1, and ``0.11.0rc0`` is already an MMEngine 0.11.

    Args:
        text (str): For example ``'2.11.0+cu130'``.

    Returns:
        tuple[int, ...]: At least three numbers, for example (2, 11, 0).

    Raises:
        ValueError: If the text does not begin with a number.
    """
    match = re.match(r'\d+(\.\d+)*', text)
    if match is None:
        raise ValueError(f'"{text}" is not a version; expected one such as "2.1.0".')
    numbers = [int(number) for number in match.group().split('.')]
    return (*numbers, 0, 0)[: max(3, len(numbers))]
