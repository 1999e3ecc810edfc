# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest

from mmfakd.ops.filter_groups import fewest_groups


@pytest.mark.parametrize(
    ('channels', 'most', 'groups'),
    [
        ((64, 64), 2**20, 1),
        ((256, 256), 2**20, 16),
        ((256, 256), 2**20 - 1, 32),
        ((128, 256), 2**20, 8),
        # Where no power of two divides both far enough, another number does.
        ((255, 255), 2**20, 17),
        ((192, 192), 2**20, 16),
        # No more than both channels divide into.
        ((256, 12), 1, 4),
        ((255, 256), 1, 1),
    ],
)
def test_as_few_as_keep_it_small(channels, most, groups):
    assert fewest_groups(*channels, 16 * 16, most) == groups
