# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Filters of the studies, and the tables that name them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from run_table import read_table
from studies.identity_filter import IdentityFilter
from studies.kernel_filter import KernelFilter

from mmfakd.engine.launch import merge_cfg_options
from mmfakd.models.layers import FrequencyAttention
from mmfakd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('size', [5, (5, 5)])
def test_kernel_is_the_filter_of_its_own_size(size):
    """On a periodic map, which a map of the kernel's own size is to the filter."""
    layer = KernelFilter(4, 6, 5).double()
    same = FrequencyAttention(4, 6, size=size, high_pass=0).double()
    same.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    periodic = F.pad(x, (2, 2, 2, 2), mode='circular')
    torch.testing.assert_close(layer(periodic)[..., 2:-2, 2:-2], same(x))


@pytest.mark.parametrize('size', [(3, 4), (16, 9), (1, 1)])
def test_kernel_takes_any_size(size):
    layer = KernelFilter(4, 4)
    layer(torch.randn(2, 4, *size)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize('groups', [1, 2])
def test_start_near_the_identity(groups):
    """The rest is the published start of the filter."""
    torch.manual_seed(0)
    options = dict(modes=6, groups=groups, with_local=False)
    layer = IdentityFilter(8, 8, **options)
    # The same numbers again: it draws a second time.
    torch.manual_seed(0)
    FrequencyAttention(8, 8, **options)
    plain = FrequencyAttention(8, 8, **options)
    x = torch.randn(2, 8, 10, 6)
    low = FrequencyAttention(8, 8, **options)
    # What of the input has a frequency of the filter passes.
    low.load_state_dict(layer.state_dict())
    low.filter.data = layer.filter.data - plain.filter.data
    torch.testing.assert_close(layer(x), low(x) + plain(x))
    square = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(low(square), square)


def _runs():
    for table in ('bccd_capacity', 'bccd_gfl', 'cifar100_short'):
        path = ROOT / f'.dev_scripts/studies/{table}.yml'
        first, runs, _ = read_table(path, Path('work_dirs') / table)
        for run in [*first, *runs]:
            if run.seed == 0:
                yield pytest.param(run, id=f'{table}-{run.name}')


@pytest.mark.parametrize('run', list(_runs()))
def test_model_of_a_table_is_built(run, monkeypatch):
    monkeypatch.chdir(ROOT)
    for step in (run, run.first):
        if step is not None:
            config = Config.fromfile(step.config)
            merge_cfg_options(config, step.options)
            pytest.importorskip(config.default_scope)
            with DefaultScope.overwrite_default_scope(config.default_scope):
                assert MODELS.build(config.model).training
