# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One teacher for all runs, and what they log."""

import pytest
from mmengine.logging import MMLogger

from tests.helpers.tiny_runs import save_teacher


@pytest.fixture(scope='session')
def teacher_ckpt(tmp_path_factory):
    """Path of a teacher's weights."""
    return save_teacher(tmp_path_factory.mktemp('teacher'))


@pytest.fixture
def lines(monkeypatch):
    """Every line that is logged."""
    told = []
    monkeypatch.setattr(
        MMLogger, 'callHandlers', lambda _, record: told.append(record.getMessage())
    )
    return told
