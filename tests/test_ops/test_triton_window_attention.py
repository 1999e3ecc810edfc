# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The kernels without a GPU: interpreted, compiled, and where they cannot run.

What needs a GPU is in test_on_gpu.py.
"""

import warnings
from pathlib import Path

import pytest
import torch

from mmfakd.ops import triton_window_attention, window_attention
from mmfakd.ops.blockwise_window_attention import BlockwiseWindowAttention
from mmfakd.ops.chooser import Chooser
from mmfakd.ops.kernel_library import runs_kernels
from mmfakd.ops.triton_window_attention import TritonWindowAttention
from tests.helpers.triton_kernels import (
    ARCHITECTURES,
    FEW_SPILLS,
    compile_kernel,
    interpret,
)
from tests.helpers.window_attentions import make_inputs, results


def test_interpreted():
    interpret(Path(__file__).with_name('interpreted_window_attention.py'))


SIZES = ['channels', 'height', 'width', 'rows', 'columns']


@pytest.mark.parametrize('arch', ARCHITECTURES)
@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('name', ['attend', 'attend_backward'])
def test_compiles_without_spilling(tmp_path, monkeypatch, name, last, arch):
    """Features in half precision, as large queries; in full, smaller ones."""
    from mmfakd.ops import window_attention_kernels

    out = torch.empty(2, 64, 56, 56, device='meta')
    constants = dict(triton_window_attention._tile(out, last), SIZE=3)
    constants['ENLARGE'] = not last
    halves = ['query', 'key_value', 'out', 'grad', 'grad_query', 'grad_key_value']
    types = dict.fromkeys(SIZES, 'i32')
    types.update(row_scale='fp32', column_scale='fp32')
    if last:
        types.update(dict.fromkeys(halves, '*bf16'))
    kernel = getattr(window_attention_kernels, name)
    warps = triton_window_attention._WARPS[name]
    usage = compile_kernel(kernel, types, constants, arch, warps, tmp_path, monkeypatch)
    assert usage.spills <= FEW_SPILLS, usage


def test_falls_back_with_one_warning(monkeypatch):
    """Where Triton is tried on a CPU that does not interpret it."""
    inputs = make_inputs((2, 4, 5, 6), 3)
    expected = results(BlockwiseWindowAttention.apply, inputs, inputs[0])
    chooser = Chooser()
    monkeypatch.setattr(window_attention, 'CHOOSER', chooser)
    monkeypatch.setattr(chooser, '_choose', lambda *_: 'triton')
    with pytest.warns(UserWarning, match="The way 'triton' to compute 'window atten"):
        first = results(window_attention.window_attention, inputs, inputs[0])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        second = results(window_attention.window_attention, inputs, inputs[0])
    for actual in (first, second):
        assert all(torch.equal(a, b) for a, b in zip(actual, expected))


def test_cpus_are_left_alone():
    query, *others = make_inputs((2, 4, 5, 6), 3)
    out = window_attention.window_attention(query.requires_grad_(), *others)
    assert out.grad_fn.name() == 'BlockwiseWindowAttentionBackward'
    assert not runs_kernels(query)


def test_passes_on_the_device_without_data():
    inputs = [z.requires_grad_() for z in make_inputs((2, 4, 5, 6), 3, device='meta')]
    out = TritonWindowAttention.apply(*inputs)
    grads = torch.autograd.grad(out, inputs, torch.empty_like(out))
    assert [g.shape for g in grads] == [z.shape for z in inputs]


@pytest.mark.parametrize(
    ('shape', 'last', 'tile'),
    [
        # Rows of 32 pixels are read at once; channels fill what small maps leave.
        ((64, 56, 56), False, (1, 16, 32)),
        ((64, 8, 8), False, (8, 8, 8)),
        ((64, 7, 7), False, (8, 8, 8)),
        ((512, 1, 1), False, (256, 1, 1)),
        ((6, 1, 5), False, (4, 1, 8)),
        # Half of the channels at most, because their offsets are of one kind.
        ((64, 56, 56), True, (16, 4, 8)),
        ((6, 56, 56), True, (4, 16, 8)),
    ],
)
def test_tiles(shape, last, tile):
    out = torch.empty(2, *shape, device='meta')
    actual = triton_window_attention._tile(out, last)
    assert tuple(actual[f'BLOCK_{name}'] for name in 'CHW') == tile
    assert actual['LAST'] == last
