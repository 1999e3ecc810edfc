# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is compared of the implementations of attention over windows."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmfakd.analysis.benchmark.naive_layers import naive_local_attention
from mmfakd.ops.window_attention import plain_window_attention

# Shape of the queries, side of the window, whether channels come last in memory.
CASES = [
    # One tile, and several that reach beyond the map.
    ((2, 6, 5, 9), 3, False),
    ((1, 2, 17, 33), 3, False),
    # Windows larger than the map.
    ((3, 2, 1, 1), 3, False),
    ((1, 4, 1, 7), 3, False),
    ((1, 4, 2, 1), 5, False),
    # More channels than fill a tile.
    ((1, 130, 2, 3), 3, False),
    ((1, 4, 7, 6), 1, False),
    ((1, 2, 7, 6), 5, False),
    ((1, 2, 3, 5), 7, False),
    ((2, 10, 6, 7), 3, True),
    ((1, 34, 3, 9), 3, True),
    ((1, 4, 6, 6), 5, True),
    ((0, 4, 6, 6), 3, False),
]


def make_inputs(
    shape: tuple, size: int, last: bool = False, device: str = 'cpu'
) -> list[Tensor]:
    """Random queries, keys with values, and offsets by row and by column."""
    n, channels, height, width = shape
    maps = [torch.randn(n, c, height, width) for c in (channels, 2 * channels)]
    if last:
        maps = [z.contiguous(memory_format=torch.channels_last) for z in maps]
    return [z.to(device) for z in (*maps, *torch.randn(2, channels // 2, size))]


def naive_window_attention(
    query: Tensor, key_value: Tensor, row_offset: Tensor, column_offset: Tensor
) -> Tensor:
    """The literal version, where there is one; queries are enlarged before."""
    query = F.interpolate(query, key_value.shape[2:])
    if row_offset.shape[1] != 3:
        return plain_window_attention(query, key_value, row_offset, column_offset)
    key, value = key_value.chunk(2, 1)
    return naive_local_attention(query, key, value, row_offset, column_offset)


def results(attend, inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    """Output and gradients, as float64 on the CPU."""
    inputs = [z.detach().requires_grad_() for z in inputs]
    out = attend(*inputs)
    grads = torch.autograd.grad(out, inputs, grad.to(out))
    return [z.detach().double().cpu() for z in (out, *grads)]


def assert_equals_naive(attend, inputs, grad=None, tolerance=1e-5, least=0.0):
    """Compare output and gradients with those of the naive version in float64.

    Errors count relative to the largest number, or to ``least`` if that is larger.
    """
    grad = torch.randn_like(inputs[0]) if grad is None else grad
    actual = results(attend, inputs, grad)
    doubles = [z.double().cpu() for z in inputs]
    expected = results(naive_window_attention, doubles, grad.cpu())
    for a, b in zip(actual, expected):
        assert a.shape == b.shape
        if b.numel():
            scale = max(b.abs().max().item(), least)
            assert (a - b).abs().max().item() <= tolerance * scale


def assert_large_scores_are_exact(attend):
    """They are as exact as float32 is at 300; where one wins, nothing moves it."""
    query, *others = make_inputs((2, 4, 6, 6), 3)
    inputs = query.sign() * 300, *(z.clamp(-1, 1) for z in others)
    assert_equals_naive(attend, inputs, tolerance=1e-4, least=1)


def assert_views_are_taken(attend):
    """Inputs with gaps or transposed, and a gradient that is one number."""
    query, key_value, *offsets = make_inputs((4, 4, 9, 7), 3)
    query, key_value = query[::2, :, :5, ::2], key_value.transpose(2, 3)[::2, :, :5, 5:]
    grad = torch.ones(()).expand(query.shape)
    offsets = [offset.t().contiguous().t() for offset in offsets]
    assert_equals_naive(attend, (query, key_value, *offsets), grad)


def assert_second_derivatives_are_refused(attend):
    """With an error of PyTorch's, instead of wrong numbers."""
    query, *others = make_inputs((1, 2, 3, 3), 3)
    out = attend(query.requires_grad_(), *others)
    (grad,) = torch.autograd.grad(out.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiate twice'):
        grad.sum().backward()
