# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The published implementation's numbers, in every way that a CPU can choose."""

from pathlib import Path

import pytest

from mmfakd.ops.chooser import CHOOSER
from mmfakd.ops.frequency_filter import FREQUENCY_FILTER
from mmfakd.ops.window_attention import WINDOW_ATTENTION
from tests.helpers.triton_kernels import interpret
from tests.test_models.test_connectors import test_review_connector as review
from tests.test_models.test_layers import test_frequency_attention as filters
from tests.test_models.test_layers import test_local_cross_attention as attention

SIZES = [1, 7, 8, 16, 32]
WAYS = [
    (operation, name)
    for operation in (FREQUENCY_FILTER, WINDOW_ATTENTION)
    for name in operation.ways
    # Those of GPUs alone.
    if not any(word in name for word in ('triton', 'real products'))
]


@pytest.mark.parametrize(
    ('operation', 'name'), WAYS, ids=[f'{op.name}: {name}' for op, name in WAYS]
)
def test_golden(operation, name):
    """Layers, their gradients, and five steps of training of a pyramid."""
    taken = []

    def way(*inputs):
        usable = operation.ways[name].usable(*inputs)
        taken.append(usable)
        return name if usable else operation.reference(*inputs)

    with CHOOSER.forcing({operation.name: way}):
        if operation is FREQUENCY_FILTER:
            for size in SIZES:
                filters.test_golden(size)
        else:
            for size in ('6x6', '5x9'):
                attention.test_golden(size)
        review.test_golden_outputs_and_training('mid3')
    # Blocks are matrices on small maps anyway.
    assert any(taken)


@pytest.mark.slow
def test_interpreted():
    interpret(Path(__file__).with_name('interpreted_golden.py'))
