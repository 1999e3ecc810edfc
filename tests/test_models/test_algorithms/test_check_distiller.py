# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is no model, no distiller, or a distiller that teaches nothing."""

import pytest

from mmfakd.models.algorithms import check_distiller
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    losses_of,
    review_distiller,
)


@pytest.mark.parametrize('given', [None, [], 'x', 5, 'mmfakd.ReviewDistiller'])
def test_no_distiller(given):
    with pytest.raises(TypeError) as caught:
        feature_distill(distiller=given)
    message = str(caught.value)
    assert message.startswith(f'distiller: got {given!r}; expected dict(type=')
    assert "'mmfakd.ReviewDistiller'" in message


@pytest.mark.parametrize(
    ('given', 'got'),
    [({}, 'an empty config'), (dict(levels=1), "a config with ['levels'] and no")],
)
def test_distiller_without_type(given, got):
    with pytest.raises(ValueError) as caught:
        feature_distill(distiller=given)
    assert str(caught.value).startswith(f'distiller: got {got}')


def test_something_else_for_a_distiller():
    cfg = dict(type='mmfakd.HierarchicalContextLoss')
    with pytest.raises(TypeError, match='HierarchicalContextLoss without recorders'):
        feature_distill(distiller=cfg)


@pytest.mark.parametrize('role', ['architecture', 'teacher'])
@pytest.mark.parametrize(
    'given', [None, [], 'mmpretrain::resnet/resnet18_8xb32_in1k.py']
)
def test_no_model(role, given):
    with pytest.raises(TypeError) as caught:
        feature_distill(**{role: given})
    message = str(caught.value)
    assert message.startswith(f'{role}: got {type(given).__name__}; expected a model')
    assert ('Write dict(cfg_path=' in message) == isinstance(given, str)


@pytest.mark.parametrize('role', ['architecture', 'teacher'])
def test_model_without_type(role):
    with pytest.raises(ValueError, match=f'{role}: got an empty config; expected dict'):
        feature_distill(**{role: {}})
    cfg = classifier()
    del cfg['type']
    with pytest.raises(ValueError, match=rf"{role}: got .*only \['_scope_', 'backb"):
        feature_distill(**{role: cfg})


@pytest.mark.parametrize('name', ['teacher_ckpt', 'student_ckpt'])
@pytest.mark.parametrize('given', ['', ' '])
def test_empty_name_of_a_checkpoint(name, given):
    with pytest.raises(ValueError, match=f'{name}={given!r}; expected a path'):
        feature_distill(**{name: given})


# ---- numbers


@pytest.mark.parametrize('weight', [1.0, [1.0, 2.0, 3.0, 4.0], 'balance'])
@pytest.mark.parametrize('name', ['loss_kd', 'loss_level_kd', 'loss_levels'])
def test_a_loss_beside_levels_is_none_of_them(name, weight):
    cfg = named(logits_distiller(), 'loss_kl', name)
    del cfg['type']
    model = feature_distill(distiller=review_distiller(loss_weight=weight, **cfg))
    assert {f'distill.{name}', 'distill.loss_level3'} <= losses_of(
        model, batch()
    ).keys()
    rows = {row.name: row.option for row in model.first_step.levels}
    assert rows[name] == f'model.distiller.distill_losses.{name}.loss_weight'
    assert rows['loss_level3'] == 'model.distiller.loss_weight'


def test_names_of_levels_are_kept():
    cfg = named(logits_distiller(), 'loss_kl', 'loss_level4')
    del cfg['type']
    with pytest.raises(ValueError, match=r"\['loss_level4'\] are kept for the levels"):
        feature_distill(distiller=review_distiller(**cfg))


@pytest.mark.parametrize('weights', [[], ()])
def test_no_weights(weights):
    with pytest.raises(ValueError, match='expected a number or one for each level'):
        feature_distill(distiller=review_distiller(loss_weight=weights))


def logits_distiller(**loss):
    recorders = dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
    side = dict(recorder='fc', from_student=True)
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=recorders,
        distill_losses=dict(loss_kl=dict(dict(type='mmrazor.KLDivergence'), **loss)),
        loss_forward_mappings=dict(
            loss_kl=dict(preds_S=side, preds_T=dict(side, from_student=False))
        ),
    )


def named(cfg, before, after):
    """A distiller whose only loss has another name."""
    parts = ('distill_losses', 'loss_forward_mappings')
    return {**cfg, **{part: {after: cfg[part][before]} for part in parts}}


@pytest.mark.parametrize('value', [0, -1, float('nan'), float('inf'), 'x'])
def test_temperature(value):
    with pytest.raises(ValueError) as caught:
        feature_distill(distiller=logits_distiller(tau=value))
    assert str(caught.value) == (
        f'loss_kl: KLDivergence got tau={value!r}, expected a finite number above 0: '
        'correct `tau` in the config.'
    )


@pytest.mark.parametrize('value', [-0.1, float('nan'), 'x', None])
def test_weight_of_a_stock_loss(value):
    with pytest.raises(
        ValueError, match='loss_kl: KLDivergence got loss_weight=.* 0 or'
    ):
        feature_distill(distiller=logits_distiller(loss_weight=value))


KL = 'mmrazor.KLDivergence'
DIST = ('logits_S', 'logits_T')


def of(kind, names=('preds_S', 'preds_T'), **loss):
    """The distiller of logits with another loss, that calls them by these names."""
    cfg = logits_distiller()
    cfg['distill_losses'] = dict(loss_kl=dict(loss, type=kind))
    sides = cfg['loss_forward_mappings']['loss_kl'].values()
    cfg['loss_forward_mappings'] = dict(loss_kl=dict(zip(names, sides)))
    return cfg


def standardized(**loss):
    return of('mmfakd.StandardizedLogitsLoss', loss=dict(dict(type=KL), **loss))


def on_maps(**loss):
    loss = dict(type='mmfakd.StandardizedLogitsLoss', loss=dict(dict(type=KL), **loss))
    return of('mmfakd.LogitMapLoss', ('s_feature', 't_feature'), loss=loss)


@pytest.mark.parametrize('value', [-9.0, float('nan'), 'x'])
@pytest.mark.parametrize('within', [standardized, on_maps])
def test_weight_of_a_loss_within_another(within, value):
    with pytest.raises(ValueError, match='KLDivergence got loss_weight=.* of 0 or'):
        feature_distill(distiller=within(loss_weight=value))


@pytest.mark.parametrize(
    ('distiller', 'key'),
    [
        (of('mmrazor.DKDLoss', alpha=-1.0), 'alpha'),
        (of('mmrazor.DKDLoss', beta=float('nan')), 'beta'),
        (of('mmrazor.DISTLoss', DIST, intra_loss_weight=-1.0), 'intra_loss_weight'),
    ],
)
def test_weight_of_a_term(distiller, key):
    with pytest.raises(ValueError, match=f'Loss got {key}=.* of 0 or more'):
        feature_distill(distiller=distiller)


@pytest.mark.parametrize(
    ('distiller', 'void'),
    [
        (review_distiller(), False),
        (review_distiller(loss_weight=0), True),
        (review_distiller(loss_weight=[0, 0, 0, 0]), True),
        (review_distiller(loss_weight=[0, 0, 0, 1]), False),
        (
            review_distiller(
                level_loss=dict(type='mmfakd.FFTFeatureLoss', loss_weight=0)
            ),
            True,
        ),
        (logits_distiller(loss_weight=0.0), True),
        (logits_distiller(), False),
        (standardized(loss_weight=0.0), True),
        (standardized(loss_weight=9.0), False),
        (on_maps(loss_weight=0.0), True),
        (of('mmrazor.DKDLoss', alpha=0, beta=0), True),
        (of('mmrazor.DKDLoss', alpha=0, beta=8), False),
        (
            of('mmrazor.DISTLoss', DIST, inter_loss_weight=0, intra_loss_weight=0),
            True,
        ),
        (dict(type='mmrazor.ConfigurableDistiller'), True),
        # What is not called a loss is not added up.
        (named(logits_distiller(), 'loss_kl', 'kl'), True),
    ],
)
def test_nothing_is_distilled(distiller, void, monkeypatch):
    told = []
    monkeypatch.setattr(
        check_distiller, 'print_log', lambda text, **_: told.append(text)
    )
    feature_distill(distiller=distiller)
    assert bool(told) == void
    assert all(text.startswith('NOTHING IS DISTILLED') for text in told)
