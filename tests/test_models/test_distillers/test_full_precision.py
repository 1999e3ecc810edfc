# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses under float16 autocast are those of float32."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.models.distillers.full_precision import compute_in_full
from tests.helpers.toy import (
    batch,
    feature_distill,
    layer_distiller,
    losses_of,
    reviewkd_distiller,
)

pytestmark = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'), reason='float16 on CPUs came later'
)


def features(vectors=False):
    """Large as those of networks without norms; squares overflow float16."""
    torch.manual_seed(0)
    s, t = (3000 * torch.randn(2, 4, 8, 6, 6)).clamp(-2e4, 2e4).half()
    return (s.flatten(1), t.flatten(1)) if vectors else (s, t)


@pytest.mark.parametrize(
    'name', ['ATLoss', 'ABLoss', 'ChannelWiseDivergence', 'L2Loss']
)
@pytest.mark.parametrize('wide', [True, False])
def test_losses_of_maps(name, wide):
    _compare(name, features(), wide or name == 'L2Loss')


@pytest.mark.parametrize('name', ['AngleWiseRKD', 'DISTLoss', 'KLDivergence'])
def test_losses_of_vectors(name):
    _compare(name, features(vectors=True), True)


def _compare(name, pair, wide):
    loss = MODELS.build(dict(type=f'mmrazor.{name}'))
    s, t = pair
    expected = loss(s.float(), t.float())
    if wide:
        compute_in_full(loss)
    s = s.requires_grad_()
    with torch.autocast('cpu', dtype=torch.float16):
        found = loss(s, t)
        # What comes after is as it was.
        assert torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float16
    if not wide:
        # The reason for all this.
        assert not found.isfinite().all()
        return
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert s.grad.isfinite().all()


def test_an_error_ends_it():
    loss = MODELS.build(dict(type='mmrazor.L2Loss'))
    compute_in_full(loss)
    with torch.autocast('cpu', dtype=torch.float16):
        with pytest.raises(TypeError):
            loss(torch.ones(2, 2))
        assert torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float16
    assert loss._autocasts == []
    copy.deepcopy(loss)(torch.ones(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize('distiller', [layer_distiller, reviewkd_distiller])
def test_feature_distill_asks_for_it(distiller):
    model = feature_distill(distiller=distiller())
    seen = []
    losses = [*model.distiller.distill_losses.values()]
    losses.append(getattr(model.distiller, 'level_loss', None))
    for loss in filter(None, losses):
        loss.register_forward_pre_hook(
            lambda module, args, kwargs: seen.extend([*args, *kwargs.values()]),
            with_kwargs=True,
        )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses_of(model, batch())
    assert seen and all(tensor.dtype == torch.float32 for tensor in seen)
