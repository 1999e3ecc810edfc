# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A message of MMEngine's that is not right, kept out of the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


@contextmanager
def drop_message(text: str) -> Iterator[None]:
    """Keep a message out of MMEngine's log for the time of one call.

    Args:
        text (str): A part of the message that no other one has.

    Yields:
        None: While it is dropped, however often it comes.
    """

    def differs(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    # The one that MMEngine writes to.
    logger = MMLogger.get_current_instance()
    logger.addFilter(differs)
    try:
        yield
    finally:
        logger.removeFilter(differs)
