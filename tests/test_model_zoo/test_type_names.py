# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of types, however a config says them."""

import pytest
from torch import nn

from mmfakd.model_zoo.type_names import full_type_name, short_name, type_name


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        ('ResNet', 'ResNet'),
        ('mmdet.ResNet', 'ResNet'),
        ('mmdet/ResNet', 'ResNet'),
        ('package.module:ResNet', 'ResNet'),
        ('', ''),
        (nn.Linear, 'Linear'),
        (len, 'len'),
    ],
)
def test_the_bare_name(kind, name):
    assert short_name(kind) == type_name(dict(type=kind)) == name


def test_the_whole_name():
    assert full_type_name(dict(type='mmdet.ResNet')) == 'mmdet.ResNet'
    assert full_type_name(dict(type=nn.Linear)) == 'torch.nn.modules.linear.Linear'
