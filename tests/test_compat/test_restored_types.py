# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A second look, at what no unpickler here lets through."""

import collections

import numpy as np
import pytest

from mmfakd.compat.refused_error import RefusedError
from mmfakd.compat.restored_types import restore_types


@pytest.mark.parametrize(
    'value', [np.array([None]), np.zeros(1, [('a', 'O'), ('b', 'f8')])]
)
def test_arrays_of_objects(value):
    with pytest.raises(RefusedError, match='an array of objects'):
        restore_types(dict(meta=[(value,)]))


def test_what_is_numpys_own_stays():
    content = dict(a=np.ones(1), b=(np.dtype('O'), [1]), c=collections.Counter('aab'))
    before = {**content}
    restore_types(content)
    assert all(content[key] is before[key] for key in before)
    assert content['c'] == dict(a=2, b=1)


def test_plain_dicts_may_have_any_key():
    """Only what objects have as attributes is looked up by numpy."""
    restore_types(dict(names={'__array__': 0, '__background__': 1}))
