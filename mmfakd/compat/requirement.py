# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Versions of one library that mmfakd works with."""

from __future__ import annotations

from typing import NamedTuple

from mmfakd.version import parse_version


class Requirement(NamedTuple):
    """A library and the versions of it that work.

    Args:
        name (str): Name of the distribution, which pip installs.
        minimum (str): First version that works, ``'0'`` for any.
        below (str, optional): First version that does not work any more.
        reason (str): Where the bounds come from.
        required (bool): Whether mmfakd needs the library at all. Defaults to True.
        module (str): What Python imports, if that has another name. Defaults to ``''``.
    """

    name: str
    minimum: str
    below: str | None
    reason: str
    required: bool = True
    module: str = ''

    def __str__(self) -> str:
        lower = '' if self.minimum == '0' else f'>={self.minimum}'
        return f'{self.name}{lower}' + (f',<{self.below}' if self.below else '')

    @property
    def imported(self) -> str:
        """What Python imports."""
        return self.module or self.name

    def accepts(self, version: str) -> bool:
        """Tell whether a version lies within the bounds.

        Args:
            version (str): For example ``'2.11.0+cu130'``.

        Returns:
            bool: Whether it does. What is no version is within no bounds.
        """
        if self.minimum == '0' and self.below is None:
            return True
        low, high = parse_version(self.minimum), parse_version(self.below or '9999')
        try:
            return low <= parse_version(version) < high
        except ValueError:
            return False
