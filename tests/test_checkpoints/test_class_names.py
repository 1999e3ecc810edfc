# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of classes are read from checkpoints of all kinds."""

import numpy as np
import pytest
import torch

from mmfakd.checkpoints.class_names import first_renamed, trained_classes
from mmfakd.checkpoints.student import export_student


@pytest.mark.parametrize(
    ('meta', 'names'),
    [
        ({}, ()),
        (dict(meta=None), ()),
        (dict(meta=dict(CLASSES=('a', 'b'))), ('a', 'b')),
        (dict(meta=dict(dataset_meta=dict(classes=('a',)))), ('a',)),
    ],
)
def test_names_of_classes(meta, names, tmp_path):
    path = str(tmp_path / 'x.pth')
    torch.save(dict(meta, state_dict={}), path)
    assert trained_classes(path) == names


def test_a_meta_of_nothing_is_exported():
    weights = {'architecture.weight': torch.ones(1)}
    exported = export_student(dict(meta=None, state_dict=weights))
    assert list(exported['state_dict']) == ['weight']


@pytest.mark.parametrize(
    ('classes', 'other', 'renamed'),
    [
        (['a', 'b'], ('A', 'c'), (1, 'b', 'c')),
        (np.array(['a', 'b']), ('a', 'b', 'c'), None),
        # A text is one name.
        ('cat', ('cat',), None),
        ('cat', ('dog',), (0, 'cat', 'dog')),
        # Nobody knows the order, or the names.
        ({0: 'a'}, ('b',), None),
        ({'a'}, ('b',), None),
        (None, ('b',), None),
    ],
)
def test_the_first_that_is_renamed(classes, other, renamed):
    assert first_renamed(classes, other) == renamed
