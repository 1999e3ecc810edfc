# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What would fail at the first step of the optimizer is told before."""

import pytest
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mmfakd.engine.check_optimizer import check_optimizer


def wrapper(**kwargs):
    return ConfigDict(dict(dict(optimizer=dict(type='SGD', lr=0.1)), **kwargs))


@pytest.mark.parametrize(
    ('given', 'near'),
    [
        (dict(type='OptimWraper'), "'OptimWraper' is not .*Near names: 'OptimWrapper'"),
        (dict(type='CpuAmpOptimWraper'), "names: '.*CpuAmpOptimWrapper'"),
        (dict(optimizer=dict(type='SDG')), "'SDG' is not registered.*names: 'SGD"),
    ],
)
def test_unknown_types(given, near):
    with pytest.raises(KeyError, match=near):
        check_optimizer(wrapper(**given), 'mmpretrain')


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (dict(accumulative_counts=0), 'accumulative_counts=0; expected a whole number'),
        (dict(accumulative_counts=1.5), 'accumulative_counts=1.5; expected'),
        (dict(accumulative_counts='2'), "accumulative_counts='2'; expected"),
        (
            dict(clip_grad=dict(max_nrom=35)),
            "got max_nrom=35, .*clip_grad_norm_ does not take. Near names: 'max_norm'",
        ),
        (
            dict(clip_grad=dict(type='value', max_norm=1)),
            "got max_norm=1, which .*clip_grad_value_ does not .* takes 'clip_value'",
        ),
        (dict(clip_grad=dict(type='size', max_norm=1)), "clip_grad={'type': 'size'"),
        (dict(clip_grad=35), r'clip_grad=35; expected dict\(max_norm=35\), or'),
        (dict(clip_grad=dict(norm_type=2)), 'clip_grad has max_norm=None; expected'),
        (dict(clip_grad=dict(max_norm='35')), "max_norm='35'; expected a number"),
        (dict(clip_grad=dict(max_norm=float('nan'))), 'max_norm=nan; expected'),
        (dict(optimizer=dict(type='SGD', lr=float('nan'))), 'has lr=nan; expected a f'),
        (dict(optimizer=dict(type='SGD', lr=float('inf'))), 'has lr=inf; expected a f'),
        (
            dict(optimizer=dict(type='SGD', lr=0.1, weight_decay=float('nan'))),
            'optim_wrapper.optimizer has weight_decay=nan; expected a finite number.',
        ),
        (
            dict(optimizer=dict(type='SGD', lr='1e-3')),
            "has lr='1e-3', a text; expected a number. In YAML .* 1.0e-3, not 1e-3",
        ),
    ],
)
def test_what_takes_no_step(given, said):
    with pytest.raises(ValueError, match=said):
        check_optimizer(wrapper(**given))


@pytest.mark.parametrize(
    'given',
    [
        {},
        dict(type='AmpOptimWrapper', accumulative_counts=4, clip_grad=None),
        dict(type='mmfakd.CpuAmpOptimWrapper'),
        dict(type=OptimWrapper, clip_grad=dict(max_norm=35, norm_type=2)),
        dict(clip_grad=dict(max_norm=float('inf'), error_if_nonfinite=False)),
        dict(clip_grad=dict(type='value', clip_value=0.2)),
    ],
)
def test_what_is_built(given):
    """As MMEngine builds it."""
    check_optimizer(wrapper(**given))
    if 'Amp' not in str(given.get('type')):
        assert build_optim_wrapper(nn.Linear(2, 2), wrapper(**given))


def test_what_is_no_dict():
    check_optimizer(None)
    check_optimizer(dict(one=dict(optimizer=None), constructor='Other'))
