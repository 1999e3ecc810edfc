# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether losses are what is said of them, against their own values."""

import mmrazor.models  # noqa: F401
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.losses.mean_over import mean_over

KL = dict(type='mmrazor.KLDivergence')
KNOWN = [
    ('pixels', dict(type='mmrazor.L1Loss')),
    ('pixels', dict(type='mmrazor.L2Loss', div_element=True)),
    ('pixels', dict(type='mmrazor.L2Loss', div_element=True, normalize=False)),
    ('pixels', dict(type='mmrazor.ATLoss')),
    ('pixels', dict(type='mmrazor.FTLoss')),
    ('pixels', dict(KL, reduction='mean')),
    ('pixels', dict(type='mmfakd.FFTFeatureLoss')),
    ('images', KL),
    ('images', dict(type='mmrazor.L2Loss')),
    ('images', dict(type='mmrazor.OFDLoss')),
    ('images', dict(type='mmrazor.ABLoss')),
    ('images', dict(type='mmrazor.ChannelWiseDivergence')),
    ('images', dict(type='mmfakd.FFTFeatureLoss', focal_alpha=1)),
    ('images', dict(type='mmfakd.HierarchicalContextLoss')),
    (
        'images',
        dict(
            type='mmfakd.LogitMapLoss', loss=dict(type='mmrazor.ChannelWiseDivergence')
        ),
    ),
    ('batch', dict(type='mmrazor.PKDLoss')),
    ('batch', dict(type='mmfakd.LogitMapLoss', loss=KL, per_pixel=True)),
]


@pytest.mark.parametrize(('rule', 'cfg'), KNOWN)
def test_what_is_said_is_so(rule, cfg):
    loss = MODELS.build(cfg)
    assert mean_over(loss) == rule
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    whole = loss(ours, theirs)
    if rule == 'pixels':
        bigger = (nn.functional.pad(f, (0, 5)) for f in (ours, theirs))
        again = 2 * loss(*bigger)
    elif rule == 'images':
        again = sum(loss(ours[i, None], theirs[i, None]) for i in range(3)) / 3
    else:
        mixed = torch.randperm(3 * 6 * 5)
        flat = (f.transpose(0, 1).flatten(1)[:, mixed] for f in (ours, theirs))
        again = loss(*(f[None, :, None] for f in flat))
    torch.testing.assert_close(again, whole)


class Own(nn.MSELoss):
    def forward(self, s_feature, t_feature):
        return (s_feature - t_feature).flatten(2).softmax(2).square().mean()


def test_what_is_not_known():
    assert mean_over(nn.MSELoss()) == mean_over(nn.SmoothL1Loss()) == 'pixels'
    unknown = [
        dict(type='mmrazor.DistanceWiseRKD'),
        dict(type='mmrazor.L2Loss', dist=True),
        dict(type='mmrazor.L1Loss', size_average=False),
        dict(KL, reduction='sum'),
        dict(type='mmfakd.LogitMapLoss', loss=dict(KL, reduction='sum')),
    ]
    for loss in (Own(), nn.MSELoss(reduction='sum'), *map(MODELS.build, unknown)):
        assert mean_over(loss) is None
