# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfakd.ops import window_attention_at_once
from mmfakd.ops.blockwise_window_attention import BlockwiseWindowAttention
from mmfakd.ops.window_attention_at_once import WindowAttentionAtOnce, fits_at_once
from tests.helpers.window_attentions import (
    CASES,
    assert_equals_naive,
    assert_large_scores_are_exact,
    assert_second_derivatives_are_refused,
    assert_views_are_taken,
    make_inputs,
    results,
)

attend = WindowAttentionAtOnce.apply


@pytest.fixture(params=[2**21, 300], ids=['whole', 'parts'])
def block(request, monkeypatch):
    """All samples together, and a few at a time."""
    monkeypatch.setattr(window_attention_at_once, 'BLOCK', request.param)


@pytest.mark.usefixtures('block')
@pytest.mark.parametrize(('shape', 'size', 'last'), CASES)
def test_equals_naive(shape, size, last):
    assert_equals_naive(attend, make_inputs(shape, size, last))


@pytest.mark.usefixtures('block')
@pytest.mark.parametrize('small', [(1, 1), (2, 3), (6, 2), (3, 4), (4, 5), (7, 6)])
def test_enlarges_queries(small):
    """By a view where a row of them fits, else by nearest neighbours."""
    _, *others = (z.double() for z in make_inputs((5, 4, 6, 6), 3))
    query, grad = torch.randn(5, 4, *small).double(), torch.randn(5, 4, 6, 6).double()
    inputs = [query, *others]
    actual = results(attend, inputs, grad)
    expected = results(BlockwiseWindowAttention.apply, inputs, grad)
    for a, b in zip(actual, expected):
        assert torch.allclose(a, b, atol=1e-12)


def test_views_and_expanded_gradients():
    assert_views_are_taken(attend)


def test_large_scores():
    assert_large_scores_are_exact(attend)


def test_second_derivatives_are_refused():
    assert_second_derivatives_are_refused(attend)


def test_samples_that_are_too_large_are_told():
    assert fits_at_once(torch.empty(9, 32, 256, 256, device='meta'))
    assert not fits_at_once(torch.empty(1, 512, 200, 336, device='meta'))
