# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names that a checkpoint hook's template gives."""

import re

import pytest

from mmfakd.engine.file_names import name_pattern


@pytest.mark.parametrize(
    ('template', 'name', 'fits'),
    [
        ('epoch_{}.pth', 'epoch_12.pth', True),
        ('epoch_{}.pth', 'epoch_12_s.pth', True),
        ('epoch_{}.pth', 'epoch_.pth', False),
        ('epoch_{}.pth', 'epoch_12xpth', False),
        ('epoch_{:04d}.pth', 'epoch_0012.pth', True),
        ('latest.pth', 'latest.pth', True),
        ('latest.pth', 'latest_1.pth', False),
        ('(a)_{}', '(a)_1', True),
        # Numbers as endings, and dots in braces.
        ('model.{}', 'model.12', True),
        ('model.{}', 'model_s.12', True),
        ('model.{}', 'model.pth', False),
        ('v1.{}.pth', 'v1.12.pth', True),
        ('epoch_{:.0f}', 'epoch_12', True),
    ],
)
def test_names(template, name, fits):
    assert bool(re.fullmatch(name_pattern(template, '(?:_s)?'), name)) == fits
