# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One teacher for all runs."""

import pytest

from tests.helpers.tiny_runs import save_teacher


@pytest.fixture(scope='session')
def teacher_ckpt(tmp_path_factory):
    """Path of a teacher's weights."""
    return save_teacher(tmp_path_factory.mktemp('teacher'))
