# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What MMEngine's logger says, as a list of messages."""

import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def logged():
    """The messages of the test so far, information included."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.setLevel(level)
    logger.removeHandler(handler)
