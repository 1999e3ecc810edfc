# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The kernels of filters without a GPU: interpreted, compiled, dispatched."""

from pathlib import Path

import pytest
import torch

from mmfakd.ops.filter_tables import input_tables
from mmfakd.ops.spectral_filter_at_once import SpectralFilterAtOnce
from mmfakd.ops.triton_filter import is_usable
from tests.helpers.filters import make_filter
from tests.helpers.triton_kernels import (
    ARCHITECTURES,
    FEW_SPILLS,
    compile_kernel,
    interpret,
)

POINTERS = dict(places='*i64', uses='*i64')
NUMBERS = ['numbers', 'fan_in', 'fan_out', 'count', 'samples', 'share']
NUMBERS += ['groups', 'weights', 'channels', 'parts']


def test_interpreted():
    interpret(Path(__file__).with_name('interpreted_filter.py'))


@pytest.mark.parametrize('arch', ARCHITECTURES)
@pytest.mark.parametrize(
    ('name', 'constants'),
    [
        ('fold', dict(MERGE=True)),
        ('unfold', dict(USES=2, MERGE=True, ROWS=16)),
        ('finish', {}),
    ],
)
def test_compiles_without_spilling(tmp_path, monkeypatch, name, constants, arch):
    pytest.importorskip('triton')
    from mmfakd.ops import filter_kernels

    types = {**POINTERS, **dict.fromkeys(NUMBERS, 'i32'), 'norm': 'fp32'}
    if name == 'unfold':
        del types['weights']
    kernel = getattr(filter_kernels, name)
    constants = dict(constants, BLOCK=1024)
    usage = compile_kernel(kernel, types, constants, arch, 4, tmp_path, monkeypatch)
    assert usage.spills <= FEW_SPILLS, usage


@pytest.mark.parametrize('merge', [False, True])
def test_passes_on_the_device_without_data(merge):
    layer, params, x, grad = make_filter((6, 6), dtype=torch.float, size=6)
    params = [p.detach().to('meta').requires_grad_() for p in params]
    x = x.detach().to('meta').requires_grad_()
    tables = input_tables(layer.grid, layer.high_pass, x, torch.float)
    y = SpectralFilterAtOnce.apply(x, *params, tables, merge, 'fft', False, True)
    grads = torch.autograd.grad(y, [x, *params], grad.to('meta'))
    assert [g.shape for g in grads] == [z.shape for z in [x, *params]]


def test_on_gpus_alone():
    assert not is_usable(torch.empty(3, 1, 2, 2, 2))
