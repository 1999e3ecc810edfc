# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The kernels of triton_filter on the CPU; test_triton_filter.py runs this.

It takes the environment variable TRITON_INTERPRET=1 from the start of the process.
"""

import pytest
import torch

from mmfakd.ops import triton_filter
from mmfakd.ops.filter_tables import input_tables
from mmfakd.ops.spectral_filter_at_once import SpectralFilterAtOnce
from tests.helpers.filters import by_blocks, gradients, make_filter

CASES = [
    (dict(size=(7, 6)), (7, 6)),
    (dict(size=(21, 20), high_pass=0.3), (21, 20)),
    (dict(modes=(8, 8)), (5, 4)),
    (dict(modes=(6, 6)), (7, 9)),
    (dict(modes=(5, 6)), (12, 10)),
]


@pytest.mark.parametrize(('kwargs', 'size'), CASES)
@pytest.mark.parametrize('local', ['none', 'apart', 'merged'])
@pytest.mark.parametrize('groups', [1, 2])
def test_equals_blocks(kwargs, size, groups, local, monkeypatch):
    """With few numbers a program, so that there are several of them."""
    if local == 'merged' and (groups == 2 or size > kwargs.get('modes', size)):
        pytest.skip('does not join')
    monkeypatch.setattr(triton_filter, '_BLOCK', 16)
    monkeypatch.setattr(triton_filter, '_ROWS', 5)
    with_local = local != 'none'
    layer, params, x, grad = make_filter(
        size, dtype=torch.float, groups=groups, with_local=with_local, **kwargs
    )
    expected = gradients(by_blocks(layer, params, x), params, x, grad)
    tables = input_tables(layer.grid, layer.high_pass, x, torch.float)
    plan = local == 'merged', 'fft', False, True
    y = SpectralFilterAtOnce.apply(x, *params, tables, *plan)
    # A gate's gradient may be a small sum of many numbers.
    least = 0.1 * max(b.norm() for b in expected)
    for a, b in zip(gradients(y, params, x, grad), expected):
        assert a.shape == b.shape
        scale = b.abs().max() if b.numel() > 1 else max(b.abs().max(), least)
        assert (a - b).abs().max() <= 1e-5 * scale


def test_same_bits_in_every_run():
    layer, params, x, grad = make_filter((6, 6), dtype=torch.float, size=6)
    tables = input_tables(layer.grid, layer.high_pass, x, torch.float)
    runs = []
    for _ in range(2):
        y = SpectralFilterAtOnce.apply(x, *params, tables, True, 'fft', False, True)
        runs.append(gradients(y, params, x, grad))
    assert all(torch.equal(a, b) for a, b in zip(*runs))
