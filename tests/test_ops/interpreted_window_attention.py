# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""TritonWindowAttention on the CPU; test_triton_window_attention.py runs this.

It takes the environment variable TRITON_INTERPRET=1 from the start of the process.
"""

import pytest
import torch

from mmfakd.ops import triton_window_attention
from mmfakd.ops.triton_window_attention import TritonWindowAttention
from tests.helpers.window_attentions import (
    CASES,
    assert_equals_naive,
    assert_large_scores_are_exact,
    assert_second_derivatives_are_refused,
    assert_views_are_taken,
    make_inputs,
    naive_window_attention,
    results,
)

attend = TritonWindowAttention.apply


@pytest.mark.parametrize(('shape', 'size', 'last'), CASES)
def test_equals_naive(shape, size, last):
    assert_equals_naive(attend, make_inputs(shape, size, last))


@pytest.mark.parametrize(
    ('small', 'last'),
    [((1, 1), False), ((3, 2), True), ((4, 5), False), ((4, 5), True), ((2, 3), False)],
)
def test_enlarges_queries(small, last):
    """As PyTorch does, whether a row of them fits or not."""
    _, *others = make_inputs((2, 4, 6, 9), 3, last)
    query, grad = torch.randn(2, 4, *small), torch.randn(2, 4, 6, 9)
    actual = results(attend, [query, *others], grad)
    inputs = [z.double() for z in (query, *others)]
    expected = results(naive_window_attention, inputs, grad.double())
    for a, b in zip(actual, expected):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize(
    ('dtype', 'last'), [(torch.float16, False), (torch.bfloat16, True)]
)
@pytest.mark.parametrize('shape', [(1, 2, 5, 9), (1, 6, 4, 4)])
def test_half_precision(shape, dtype, last):
    """As exact as what goes in and comes out: in between it is float32."""
    query, key_value, *offsets = make_inputs(shape, 3, last)
    inputs = [query.to(dtype), key_value.to(dtype), *offsets]
    grad = torch.randn(shape).to(dtype)
    actual = results(attend, inputs, grad)
    doubles = [z.double() for z in inputs]
    expected = results(naive_window_attention, doubles, grad.double())
    for a, b in zip(actual, expected):
        assert (a - b).abs().max() <= 2 * torch.finfo(dtype).eps * b.abs().max()
    assert attend(*inputs).dtype == dtype


def test_queries_in_full_precision_beside_others_in_half():
    query, key_value, *offsets = make_inputs((1, 4, 5, 6), 3)
    inputs = [query, key_value.bfloat16(), *offsets]
    leaves = [z.requires_grad_() for z in inputs]
    grads = torch.autograd.grad(attend(*leaves).sum(), leaves)
    assert [g.dtype for g in grads] == [z.dtype for z in inputs]


def test_large_scores():
    assert_large_scores_are_exact(attend)


def test_views_and_expanded_gradients():
    assert_views_are_taken(attend)


@pytest.mark.parametrize('last', [False, True])
def test_layout_is_that_of_keys_and_values(last):
    inputs = make_inputs((1, 4, 5, 6), 3, last)
    inputs[0] = make_inputs((1, 4, 5, 6), 3, not last)[0]
    assert_equals_naive(attend, inputs)
    out = attend(*inputs)
    assert out.is_contiguous(memory_format=torch.channels_last) == last


def test_same_bits_in_every_run():
    inputs = make_inputs((2, 2, 3, 4), 3)
    first, second = (results(attend, inputs, inputs[0]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_programs_keep_to_their_half():
    """Else what two of them write would depend on who is last."""
    from mmfakd.ops import window_attention_kernels as kernels

    query, key_value, *offsets = make_inputs((1, 6, 5, 9), 3)
    tile = triton_window_attention._tile(query, last=False)
    assert tile['BLOCK_C'] > 3
    out, log_total, grad_query = torch.full((3, *query.shape), torch.nan)
    grad_key_value = torch.full_like(key_value, torch.nan)
    grad_offset = torch.full((6, 3), torch.nan)
    inputs = query, key_value, *offsets, out, log_total
    grads = query, grad_query, grad_key_value, grad_offset
    # One program: the first half of the channels.
    sizes = *query.shape[1:], *query.shape[2:], 1.0, 1.0
    options = dict(tile, SIZE=3, ENLARGE=False)
    kernels.attend[(1,)](*inputs, *sizes, **options)
    kernels.attend_backward[(1,)](*inputs, *grads, *sizes, **options)
    maps = out, log_total, grad_query, *grad_key_value.chunk(2, 1)
    for z in (*(z[0] for z in maps), grad_offset):
        assert z[:3].isfinite().all()
        assert z[3:].isnan().all()


def test_second_derivatives_are_refused():
    assert_second_derivatives_are_refused(attend)
