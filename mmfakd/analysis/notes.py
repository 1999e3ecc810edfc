# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Remarks on a comparison."""

from __future__ import annotations


class Notes:
    """What a reader of a comparison has to know, each thing said once.

    Equal remarks on several runs become one line that names them all.
    """

    def __init__(self) -> None:
        self._subjects: dict[str, dict[str, None]] = {}

    def add(self, subject: str, remark: str) -> None:
        """Add a remark.

        Args:
            subject (str): The run or method.
            remark (str): What is to be said about it.
        """
        self._subjects.setdefault(remark, {})[subject] = None

    def lines(self) -> list[str]:
        """Give the notes as lines of text.

        Returns:
            list[str]: One sentence each.
        """
        return [f'{", ".join(who)}: {what}.' for what, who in self._subjects.items()]
