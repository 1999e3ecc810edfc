# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Remarks on a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Notes:
    """What a reader of a comparison has to know, each thing said once.

    Equal remarks on several runs become one line that names them all.

    Args:
        remarks (Mapping[str, Iterable[str]]): What :meth:`remarks` gave. Defaults to
            none.
    """

    def __init__(self, remarks: Mapping[str, Iterable[str]] | None = None) -> None:
        self._subjects: dict[str, dict[str, None]] = {}
        for remark, subjects in (remarks or {}).items():
            for subject in subjects:
                self.add(subject, remark)

    def add(self, subject: str, remark: str) -> None:
        """Add a remark.

        Args:
            subject (str): The run or method.
            remark (str): What is to be said about it.
        """
        self._subjects.setdefault(remark, {})[subject] = None

    def forget(self, subject: str) -> None:
        """Take back what was said about a run or method.

        Args:
            subject (str): The run or method.
        """
        for subjects in self._subjects.values():
            subjects.pop(subject, None)
        self._subjects = {what: who for what, who in self._subjects.items() if who}

    def remarks(self) -> dict[str, list[str]]:
        """Give the notes in parts, so that others can be made of them.

        Returns:
            dict[str, list[str]]: Remark -> the runs and methods that it is about.
        """
        return {remark: list(who) for remark, who in self._subjects.items()}

    def lines(self) -> list[str]:
        """Give the notes as lines of text.

        Returns:
            list[str]: One sentence each.
        """
        return [f'{", ".join(who)}: {what}.' for what, who in self._subjects.items()]
