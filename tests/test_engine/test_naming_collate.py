# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Images that fit into no batch are named; of all else the first error is told."""

import pytest
import torch
from torch.utils.data import default_collate

from mmfakd.engine.naming_collate import NamingCollate

SMALL, LARGE = torch.rand(3, 4, 4), torch.rand(3, 5, 5)


def items(**fields):
    """Two items, of what each field has for them."""
    return [dict(zip(fields, values)) for values in zip(*fields.values())]


def test_images_are_named():
    with pytest.raises(ValueError, match='different shapes .*3, 4, 4.*3, 5, 5'):
        NamingCollate(default_collate)(items(inputs=[SMALL, LARGE]))


@pytest.mark.parametrize(
    'unlike',
    [
        items(img=[SMALL, LARGE]),
        items(inputs=[[SMALL, SMALL], [LARGE, SMALL]]),
        items(inputs=[SMALL, SMALL], mask=[SMALL, LARGE]),
        [SMALL, LARGE],
    ],
    ids=['key', 'views', 'mask', 'tensors'],
)
def test_items_of_another_form_keep_their_error(unlike):
    with pytest.raises(RuntimeError, match='equal size'):
        NamingCollate(default_collate)(unlike)
