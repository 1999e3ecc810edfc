# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Errors keep their kind where they can be made with other words."""

from urllib.error import HTTPError

import pytest

from mmfakd.compat.retold import retold


@pytest.mark.parametrize(
    ('error', 'kind'),
    [
        (FileNotFoundError(2, 'no such file', 'a'), FileNotFoundError),
        (PermissionError('a'), PermissionError),
        (HTTPError('http://a', 404, 'Not Found', None, None), OSError),
        (KeyError('a'), ValueError),
        (UnicodeDecodeError('utf-8', b'a', 0, 1, 'why'), ValueError),
    ],
)
def test_kinds(error, kind):
    told = retold(error, 'other words')
    assert type(told) is kind and str(told) == 'other words'
