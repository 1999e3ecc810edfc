# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which computation is chosen; what it computes, the layer's tests say."""

import pytest
import torch

from mmfakd.ops import window_attention
from mmfakd.ops.blockwise_window_attention import BlockwiseWindowAttention
from tests.helpers.window_attentions import CASES, assert_equals_naive, make_inputs


@pytest.mark.parametrize(('shape', 'size', 'last'), CASES)
def test_block_by_block_equals_naive(shape, size, last):
    inputs = make_inputs(shape, size, last)
    assert_equals_naive(BlockwiseWindowAttention.apply, inputs)


def test_a_compiler_gets_plain_operations(monkeypatch):
    query, *others = make_inputs((2, 4, 5, 6), 3)
    query = query[..., ::2, ::2].requires_grad_()
    blockwise = window_attention.window_attention(query, *others)
    monkeypatch.setattr(window_attention, 'is_compiling', lambda: True)
    plain = window_attention.window_attention(query, *others)
    assert blockwise.grad_fn.name() == 'BlockwiseWindowAttentionBackward'
    assert plain.grad_fn.name() != blockwise.grad_fn.name()
    assert torch.allclose(plain, blockwise, atol=1e-5)


@pytest.mark.parametrize(
    ('shape', 'name'),
    [
        ((2, 4, 5, 6), 'WindowAttentionAtOnceBackward'),
        # A sample that is too large for nine times its size at once.
        ((1, 256, 200, 336), 'BlockwiseWindowAttentionBackward'),
    ],
)
def test_other_devices_get_few_operations(shape, name):
    inputs = [z.requires_grad_() for z in make_inputs(shape, 3, device='meta')]
    assert window_attention.window_attention(*inputs).grad_fn.name() == name
