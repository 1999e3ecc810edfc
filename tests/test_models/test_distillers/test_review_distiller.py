# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import nn

from mmfakd.models.distillers import ReviewDistiller
from tests.helpers.toy import (
    LEVELS,
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    step,
)


class Pyramid(nn.Module):
    """A model whose neck gives a tuple of maps."""

    def __init__(self, channels=4, deepest_first=False):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        self.neck = nn.Identity()
        self.deepest_first = deepest_first

    def forward(self, x):
        x = self.conv(x)
        maps = [F.avg_pool2d(x, 2**i) for i in range(3)]
        return self.neck(tuple(maps[::-1] if self.deepest_first else maps))


def record(distiller, student, teacher, x):
    distiller.prepare_from_student(student)
    distiller.prepare_from_teacher(teacher)
    with distiller.student_recorders, distiller.teacher_recorders:
        student(x), teacher(x)
    return distiller.compute_distill_losses()


def neck_distiller(**kwargs):
    cfg = dict(
        type='mmfakd.ReviewDistiller',
        student_levels='neck',
        teacher_levels='neck',
        connector=dict(
            type='mmfakd.ReviewConnector',
            in_channels=[4, 4, 4],
            out_channels=[6, 6, 6],
            transform=dict(type='mmfakd.FrequencyAttention', modes=4),
        ),
    )
    cfg.update(kwargs)
    return MODELS.build(cfg)


def test_level_losses_are_weighted_mse_of_predictions():
    model = feature_distill(distiller=review_distiller(loss_weight=[1, 2, 3, 0.5]))
    seen = []
    connector = model.distiller.connectors['review']
    connector.register_forward_hook(lambda m, args, out: seen.extend(out))
    teacher = {}
    for name in LEVELS:
        module = model.teacher.get_submodule(name)
        module.register_forward_hook(
            lambda m, args, out, name=name: teacher.__setitem__(name, out)
        )
    losses = losses_of(model, batch())
    for i, (name, weight) in enumerate(zip(LEVELS, [1, 2, 3, 0.5])):
        target = teacher[name][0] if isinstance(teacher[name], tuple) else teacher[name]
        target = target.reshape(seen[i].shape)
        expected = weight * F.mse_loss(seen[i], target)
        torch.testing.assert_close(losses[f'distill.loss_level{i}'], expected)


@pytest.mark.parametrize('loss', ['mmfakd.FFTFeatureLoss', 'mmrazor.L2Loss'])
def test_level_loss_from_config(loss):
    model = feature_distill(distiller=review_distiller(level_loss=dict(type=loss)))
    losses = step(model, batch())
    assert all(losses[f'distill.loss_level{i}'].isfinite() for i in range(4))


def test_positional_level_loss():
    """mmrazor's PKD loss names its arguments otherwise."""
    cfg = review_distiller(level_loss=dict(type='mmrazor.PKDLoss'))
    losses = losses_of(feature_distill(distiller=cfg), batch())
    assert losses['distill.loss_level0'].isfinite()


@pytest.mark.parametrize(
    ('warmup', 'info', 'factor'),
    [
        (None, dict(epoch=0), None),
        (dict(end=20), dict(epoch=0), 1 / 20),
        (dict(end=20), dict(epoch=9), 0.5),
        (dict(end=20), dict(epoch=19), 1.0),
        (dict(end=20), dict(epoch=30), 1.0),
        (dict(begin=4, end=8), dict(epoch=2), 0.0),
        (dict(begin=4, end=8), dict(epoch=4), 0.25),
        (dict(by_epoch=False, end=100), dict(epoch=0, iter=24), 0.25),
    ],
)
def test_warmup_follows_the_paper(warmup, info, factor):
    """min(epoch / warmup, 1) with epochs counted from 1."""
    # A built teacher counts as trained, so that iteration 24 is no resume without.
    teacher = MODELS.build(classifier(width=8))
    model = feature_distill(teacher=teacher, distiller=review_distiller(warmup=warmup))
    reference = feature_distill(teacher=teacher)
    reference.load_state_dict(model.state_dict())
    data = batch()
    hub = MessageHub.get_current_instance()
    for key, value in info.items():
        hub.update_info(key, value)
    losses = losses_of(model, copy.deepcopy(data))
    full = losses_of(reference, data)
    if factor is None:
        assert 'distill.warmup' not in losses
        factor = 1.0
    else:
        assert losses['distill.warmup'].item() == pytest.approx(factor)
    for i in range(4):
        key = f'distill.loss_level{i}'
        torch.testing.assert_close(losses[key], factor * full[key])


def test_warmup_longer_than_training_warns():
    model = feature_distill(distiller=review_distiller(warmup=dict(end=20)))
    MessageHub.get_current_instance().update_info('max_epochs', 10)
    with pytest.warns(UserWarning, match='ends at 20 epochs, but training has only 10'):
        losses_of(model, batch())


@pytest.mark.parametrize('student_first', [False, True])
@pytest.mark.parametrize('teacher_first', [False, True])
def test_neck_tuple_in_either_order(student_first, teacher_first):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16)
    losses = {}
    for flip in (False, True):
        torch.manual_seed(1)
        distiller = neck_distiller()
        torch.manual_seed(2)
        student = Pyramid(4, deepest_first=flip and student_first)
        teacher = Pyramid(6, deepest_first=flip and teacher_first)
        losses[flip] = record(distiller, student, teacher, x)
    assert list(losses[True]) == ['loss_level0', 'loss_level1', 'loss_level2']
    for key, value in losses[True].items():
        torch.testing.assert_close(value, losses[False][key])


def test_levels_by_recorder_and_indices():
    distiller = neck_distiller(
        student_recorders=dict(
            out=dict(type='mmrazor.ModuleOutputs', source='neck'),
        ),
        student_levels=[dict(recorder='out', data_idx=i) for i in (0, 1, 2)],
    )
    losses = record(distiller, Pyramid(4), Pyramid(6), torch.rand(2, 3, 16, 16))
    assert len(losses) == 3


def test_pre_activation_by_a_recorder_in_place():
    cfg = review_distiller()
    for role in ('student_levels', 'teacher_levels'):
        # The last block's one ReLU is called twice.
        cfg[role] = [
            dict(
                recorder=dict(
                    type='mmrazor.ModuleInputs', source=f'backbone.layer{i}.1.relu'
                ),
                record_idx=1,
                data_idx=0,
            )
            for i in (1, 2, 3)
        ] + ['neck.gap']
    model = feature_distill(distiller=cfg)
    seen = {}
    layer = model.architecture.backbone.layer2
    layer.register_forward_hook(lambda _, __, out: seen.update(out=out))
    gather = model.distiller._gather

    def spy(levels):
        names, features = gather(levels)
        seen[levels[0].from_student] = features
        return names, features

    model.distiller._gather = spy
    losses = losses_of(model, batch())
    assert sorted(k for k in losses if 'level' in k) == [
        f'distill.loss_level{i}' for i in range(4)
    ]
    assert seen[True][1].min() < 0 and seen[False][1].min() < 0
    assert torch.equal(seen[True][1].relu(), seen['out'])


def test_other_losses_mix_in():
    cfg = layer_distiller()
    review = review_distiller(
        student_recorders=cfg['student_recorders'],
        teacher_recorders=cfg['teacher_recorders'],
        connectors=cfg['connectors'],
        distill_losses=cfg['distill_losses'],
        loss_forward_mappings=cfg['loss_forward_mappings'],
    )
    losses = losses_of(feature_distill(distiller=review), batch())
    assert {'distill.loss_fam', 'distill.loss_level3'} <= set(losses)


def test_unknown_layer_lists_near_names():
    cfg = review_distiller()
    cfg['student_levels'] = ['backbone.layer9', *LEVELS[1:]]
    expected = r"no layer 'backbone.layer9'.*layer1"
    with pytest.raises(ValueError, match=expected):
        feature_distill(distiller=cfg)
    cfg['student_levels'][0] = dict(recorder='backbone.layer9', tokens=dict(prefix=1))
    with pytest.raises(ValueError, match=expected):
        feature_distill(distiller=cfg)


def test_teacher_channels_error_names_level_and_shapes():
    cfg = review_distiller()
    cfg['connector']['out_channels'] = [8, 16, 31, 32]
    model = feature_distill(distiller=cfg)
    expected = r'level 2: .*\(4, 31, 2, 2\).*\(4, 32, 2, 2\)'
    with pytest.raises(ValueError, match=expected):
        losses_of(model, batch())


def test_student_channels_error_names_level():
    cfg = review_distiller()
    cfg['connector']['in_channels'] = [4, 6, 16, 16]
    model = feature_distill(distiller=cfg)
    with pytest.raises(ValueError, match=r'level 1.*got 8 channels.*expected 6'):
        losses_of(model, batch())


def test_size_error_names_level():
    cfg = review_distiller()
    cfg['connector']['sizes'] = [8, 4, 3, 1]
    model = feature_distill(distiller=cfg)
    with pytest.raises(ValueError, match=r'level 2: .*3, 3\).*2, 2\)'):
        losses_of(model, batch())


def test_number_of_levels_must_agree():
    cfg = review_distiller()
    cfg['teacher_levels'] = LEVELS[:3]
    model = feature_distill(distiller=cfg)
    with pytest.raises(ValueError, match='4 student levels .* 3 teacher levels'):
        losses_of(model, batch())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(student_levels=[]), 'student_levels is empty'),
        (dict(student_levels=[3]), 'expected a module name'),
        (dict(teacher_levels=[dict(recorder='x', idx=1)]), "'idx'"),
        (dict(teacher_levels=[dict(source='x')]), 'expected a module name'),
        (dict(warmup=dict(begin=3, end=3)), 'end > begin'),
        (dict(warmup=dict(epochs=3)), 'by_epoch'),
        (dict(loss_weight='1'), 'expected a number'),
        (
            dict(level_loss=[dict(type='mmrazor.L2Loss')] * 4),
            'level_loss: got .*expected one config, .*mmfakd.LevelDistiller takes a',
        ),
        (dict(level_loss='mmrazor.L2Loss'), "got 'mmrazor.L2Loss'; expected one conf"),
        (dict(connectors=dict(review=dict(type='mmrazor.L2Loss'))), 'rename'),
    ],
)
def test_bad_arguments(changes, message):
    cfg = dict(review_distiller(), **changes)
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_wrong_number_of_weights():
    model = feature_distill(distiller=review_distiller(loss_weight=[1, 2]))
    with pytest.raises(ValueError, match='2 values for 4 levels'):
        losses_of(model, batch())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(connector=None), 'connector: got None; expected dict'),
        (dict(connector=[]), r'connector: got \[\]; expected dict'),
        (dict(connector=dict(in_channels=[4])), r"connector: got \{'in_channels'"),
        (dict(student_levels=5), 'student_levels: got 5; expected a module name'),
        (dict(teacher_levels=['']), "teacher_levels: got ''; expected a module name"),
        (dict(loss_weight=-1), 'loss_weight: got -1; .* none below 0'),
        (dict(loss_weight=[1, 1, -1, 1]), r'got \[1, 1, -1, 1\]; .* none below 0'),
        (dict(loss_weight=float('nan')), 'loss_weight: got nan; expected a number'),
        (dict(loss_weight=[1, 1, 1, 'x']), "loss_weight: got .*'x'.*; expected"),
        (dict(loss_weight=None), 'loss_weight: got None; expected a number'),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(review_distiller(), **changes))


@pytest.fixture
def told(monkeypatch):
    texts = []
    module = sys.modules[ReviewDistiller.__module__]
    monkeypatch.setattr(module, 'print_log', lambda text, **kwargs: texts.append(text))
    return texts


@pytest.mark.parametrize(
    ('in_channels', 'advice'),
    [
        ([4, 8, 16, 15], 'set `in_channels=[4, 8, 16, 16]` in `distiller.connector`'),
        ([8, 16, 32, 32], "are the channels of the teacher's levels"),
    ],
)
def test_wrong_in_channels_say_which_entry_to_change(in_channels, advice, told):
    cfg = review_distiller()
    cfg['connector']['in_channels'] = in_channels
    cfg['connector']['fusion'] = dict(type='mmfakd.AttentionBasedFusion')
    # What the connector itself says: level, got, expected.
    message = f'level 3 .* got 16 channels .* expected {in_channels[3]}: correct'
    with pytest.raises(ValueError, match=message):
        losses_of(feature_distill(distiller=cfg), batch())
    (text,) = told
    assert advice in text and "'backbone.layer1', 'backbone.layer2'" in text


def test_levels_from_deep_to_shallow():
    cfg = review_distiller()
    cfg.update(student_levels=LEVELS[::-1], teacher_levels=LEVELS[::-1])
    with pytest.raises(ValueError, match='student_levels run deep to shallow: .* grow'):
        losses_of(feature_distill(distiller=cfg), batch())
    # Without exchange between the levels their order does not matter.
    connector = dict(
        type='mmfakd.LayerwiseConnector',
        in_channels=[16, 16, 8, 4],
        out_channels=[32, 32, 16, 8],
        sizes=[1, 2, 4, 8],
    )
    step(feature_distill(distiller=dict(cfg, connector=connector)), batch())


def test_connector_that_leaves_levels_out():
    """One of the user's own: no level is dropped without a word."""
    made = neck_distiller()
    forward = made.connectors['review'].forward
    for cut, told in (
        (lambda maps: forward(maps)[:2], 'ReviewConnector returned 2 predictions'),
        (lambda maps: forward(maps)[0], 'ReviewConnector returned one tensor'),
    ):
        made.connectors['review'].forward = cut
        with pytest.raises(ValueError, match=f'{told} for 3 levels'):
            record(made, Pyramid(), Pyramid(6), torch.rand(2, 3, 16, 16))
