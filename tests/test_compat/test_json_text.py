# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import json
import sys

import pytest

from mmfakd.compat.json_text import read_json


@pytest.fixture(autouse=True)
def limit_of_mmrazor():
    """Under which code in C overflows the stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2**20)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize('value', [1, None, [1, {'a': [2.5, 'b']}]])
def test_values(value):
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize('text', ['[' * 500_000, '{"a":' * 500_000, '[1', ''])
def test_what_is_no_json(text):
    with pytest.raises(json.JSONDecodeError):
        read_json(text)
    assert sys.getrecursionlimit() == 2**20
