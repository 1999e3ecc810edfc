# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The table of a comparison."""

import pytest

from mmfakd.analysis.comparison_table import _duration


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (None, ''),
        (0.0512, '51.2 ms'),
        (1.25, '1.2 s'),
        (119, '119.0 s'),
        (120, '2.0 min'),
        (7200, '2.0 h'),
    ],
)
def test_durations(seconds, text):
    assert _duration(seconds) == text
