# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What MMEngine's logger says, and a server of weights."""

import logging

import pytest
from mmengine.logging import MMLogger

from mmfakd.checkpoints import download
from tests.helpers.weight_server import weight_server


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


@pytest.fixture
def warned():
    """The warnings of the test so far."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """A server of the files in its ``folder``."""
    with weight_server(tmp_path_factory.mktemp('served')) as server:
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that downloads go to; no time is lost between tries."""
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(download, 'PAUSES', (0, 0))
    return tmp_path / 'home' / 'checkpoints'
