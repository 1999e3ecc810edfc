# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A warning that waits until it is known whether it is right."""

from __future__ import annotations

import logging

from mmengine.logging import MMLogger


class HeldWarning(logging.Filter):
    """Keep a warning of MMEngine's logger back, and drop it or give it on later.

    Args:
        text (str): A part of the warning that no other message has.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._logger: MMLogger | None = None
        self._record: logging.LogRecord | None = None

    def hold(self) -> None:
        """Keep the warning back from now on."""
        # The one that MMEngine writes to.
        self._logger = MMLogger.get_current_instance()
        self._logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a record back if it is the warning.

        Args:
            record (logging.LogRecord): What is to be logged.

        Returns:
            bool: Whether it is anything else.
        """
        if self._text not in record.getMessage():
            return True
        self._record = record
        return False

    def drop(self) -> None:
        """Forget the warning, as it is not right."""
        self._record = None

    def release(self) -> None:
        """Keep nothing back any longer; what has not been dropped is logged once."""
        record, self._record = self._record, None
        if self._logger is None:
            return
        self._logger.removeFilter(self)
        if record is not None:
            self._logger.handle(record)
