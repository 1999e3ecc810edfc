# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The published implementation's numbers by the kernels, interpreted on the CPU.

It takes the environment variable TRITON_INTERPRET=1 from the start of the process;
test_golden_in_all_ways.py runs this.
"""

from functools import partial

import pytest

from mmfakd.ops import frequency_filter, window_attention
from mmfakd.ops.chooser import CHOOSER
from tests.test_models.test_connectors import test_review_connector as review
from tests.test_models.test_layers import test_frequency_attention as filters
from tests.test_models.test_layers import test_local_cross_attention as attention


@pytest.fixture(autouse=True)
def kernels():
    modules = frequency_filter, window_attention
    names = 'frequency filter', 'window attention'
    ways = [partial(module.few_operations, kernels=True) for module in modules]
    with CHOOSER.forcing(dict(zip(names, ways))):
        yield


@pytest.mark.parametrize('size', [7, 8, 16])
def test_filters(size):
    filters.test_golden(size)


@pytest.mark.parametrize('size', ['6x6', '5x9'])
def test_attention(size):
    attention.test_golden(size)


def test_training():
    """Five steps of a pyramid."""
    review.test_golden_outputs_and_training('mid3')
