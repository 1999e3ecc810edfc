# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A step of training never waits for the device: Python reads nothing of it."""

import pytest
import torch

from tests.helpers.host_sync import no_synchronisation
from tests.helpers.toy import (
    batch,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    reviewkd_distiller,
)


@pytest.mark.parametrize(
    'read',
    [bool, float, torch.nonzero, torch.Tensor.tolist, lambda x: x.to('cpu').cpu()],
)
def test_guard_bites(read):
    with pytest.raises(AssertionError), no_synchronisation():
        read(torch.ones(()))


DISTILLERS = dict(
    fam_kd=review_distiller(warmup=dict(by_epoch=True, begin=0, end=20)),
    reviewkd=reviewkd_distiller(),
    checkpointed=reviewkd_distiller(with_cp=True),
    fft_loss=layer_distiller(loss='mmfakd.FFTFeatureLoss'),
    # Once it has been measured.
    balanced=review_distiller(loss_weight=dict(type='balance', iters=1)),
)


@pytest.mark.parametrize('distiller', DISTILLERS.values(), ids=DISTILLERS)
def test_losses_and_gradients(distiller):
    # Re-normalisation for the teacher, too.
    model = feature_distill(
        distiller=distiller,
        teacher_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
        data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3),
    )
    # The first step decides how deep the teacher runs.
    losses_of(model, batch())
    data = model.data_preprocessor(batch(), True)
    with no_synchronisation():
        losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('distiller', DISTILLERS.values(), ids=DISTILLERS)
@pytest.mark.parametrize('autocast', [False, True])
def test_on_gpu(distiller, autocast):
    """By CUDA's own watch over synchronising calls."""
    model = feature_distill(distiller=distiller).cuda()
    data = model.data_preprocessor(batch(), True)
    for mode in ('default', 'error'):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast('cuda', enabled=autocast):
                losses = model(**data, mode='loss')
            model.parse_losses(losses)[0].backward()
        finally:
            torch.cuda.set_sync_debug_mode('default')
