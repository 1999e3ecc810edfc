# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS

from mmfakd.models.distillers import Warmup
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
    step,
    without_gradient,
)


def distiller(**warmup):
    return dict(layer_distiller(), type='mmfakd.WarmupDistiller', warmup=warmup)


def at(**info):
    for key, value in info.items():
        MessageHub.get_current_instance().update_info(key, value)


@pytest.mark.parametrize(
    ('cfg', 'expected'),
    [
        (dict(), [1 / 20, 2 / 20, 10 / 20, 1.0, 1.0]),
        (dict(begin=1, end=3), [0.0, 0.5, 1.0, 1.0, 1.0]),
        (dict(by_epoch=False, end=100), [0.5] * 5),
    ],
)
def test_factor_of_epochs_and_iterations(cfg, expected):
    warmup = Warmup(cfg)
    at(iter=49)
    factors = []
    for epoch in (0, 1, 9, 19, 239):
        at(epoch=epoch)
        factors.append(warmup.factor())
    assert factors == pytest.approx(expected)


def test_before_a_run_it_is_the_first_epoch():
    assert Warmup(dict(end=4)).factor() == 0.25


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(begin=3, end=3), 'end > begin'),
        (dict(epochs=3), r"got \{'epochs': 3\}; expected dict\(by_epoch=True"),
        (dict(begin=-3, end=2), r"'begin': -3.*; expected .* not below 0"),
        (dict(end='x'), r"got \{'end': 'x'\}; expected"),
        (dict(end=float('nan')), 'both finite'),
        (dict(end=float('inf')), 'both finite'),
        (dict(by_epoch='x'), r"got \{'by_epoch': 'x'\}; expected"),
    ],
)
def test_bad_warmup(cfg, message):
    with pytest.raises(ValueError, match=message):
        Warmup(cfg)
    with pytest.raises(ValueError, match=message):
        MODELS.build(distiller(**cfg))


@pytest.mark.parametrize('cfg', [5, 'x', []])
def test_warmup_that_is_no_config(cfg):
    with pytest.raises(ValueError) as caught:
        Warmup(cfg)
    message = str(caught.value)
    assert message.startswith(f'warmup: got {cfg!r}; expected dict(by_epoch=True')
    assert message.endswith('None is no warm-up.')


def test_short_run_warns_once():
    warmup = Warmup(dict(by_epoch=False, end=50))
    at(max_epochs=3, max_iters=40)
    with pytest.warns(UserWarning, match='at 50 iterations, but training has only 40'):
        warmup.factor()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warmup.factor()


def test_losses_grow_and_statistics_do_not():
    cfg = distiller(end=4)
    cfg['distill_losses'] = dict(
        cfg['distill_losses'], distance=dict(type='mmrazor.L2Loss')
    )
    cfg['loss_forward_mappings'] = dict(
        cfg['loss_forward_mappings'],
        distance=cfg['loss_forward_mappings']['loss_fam'],
    )
    teacher = MODELS.build(classifier(width=8))
    model = feature_distill(teacher=teacher, distiller=cfg)
    stock = feature_distill(teacher=teacher, distiller=layer_distiller())
    stock.load_state_dict(model.state_dict())
    data = batch()
    full = losses_of(stock, copy.deepcopy(data))['distill.loss_fam']
    seen = []
    for epoch in (1, 3, 7):
        at(epoch=epoch)
        losses = losses_of(model, copy.deepcopy(data))
        seen.append(
            [losses[f'distill.{k}'] for k in ('loss_fam', 'distance', 'warmup')]
        )
    for found, factor in zip(seen, (0.5, 1.0, 1.0)):
        expected = [factor * full, full, torch.tensor(factor)]
        torch.testing.assert_close(found, expected)


def test_state_dict_is_the_stock_distiller_s():
    stock = MODELS.build(layer_distiller())
    assert MODELS.build(distiller()).state_dict().keys() == stock.state_dict().keys()


def test_every_parameter_gets_a_gradient():
    model = feature_distill(distiller=distiller())
    step(model, batch())
    assert without_gradient(model) == []


def test_warmup_that_begins_after_the_end_of_training():
    MessageHub.get_current_instance().update_info_dict(dict(epoch=0, max_epochs=3))
    with pytest.warns(UserWarning, match='only 3: nothing is ever distilled, .* at 5'):
        assert Warmup(dict(begin=5, end=10)).factor() == 0
