# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS

from tests.helpers.toy import (
    LEVELS,
    POOL,
    batch,
    classifier,
    convolution,
    feature_distill,
    layer_distiller,
    losses_of,
    step,
    without_gradient,
)

STAGES = LEVELS[:3]


def distiller(**kwargs):
    cfg = dict(
        type='mmfakd.LevelDistiller',
        student_levels=STAGES,
        teacher_levels=STAGES,
        level_loss=dict(type='mmrazor.L2Loss'),
        student_connectors=[convolution(4, 8), convolution(8, 16), convolution(16, 32)],
    )
    return dict(cfg, **kwargs)


def stock_distiller():
    """The same, said in the words of mmrazor's distiller."""
    recorders = {s: dict(type='mmrazor.ModuleOutputs', source=s) for s in STAGES}
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=copy.deepcopy(recorders),
        connectors={f'student{i}': convolution(4 << i, 8 << i) for i in range(3)},
        distill_losses={
            f'loss_level{i}': dict(type='mmrazor.L2Loss') for i in range(3)
        },
        loss_forward_mappings={
            f'loss_level{i}': dict(
                s_feature=dict(
                    recorder=stage, from_student=True, connector=f'student{i}'
                ),
                t_feature=dict(recorder=stage, from_student=False),
            )
            for i, stage in enumerate(STAGES)
        },
    )


@pytest.mark.parametrize('algorithm', ['mmfakd.FeatureDistill', None])
def test_says_what_the_stock_distiller_says(algorithm):
    teacher = MODELS.build(classifier(width=8))
    kwargs = dict(teacher=teacher, type=algorithm or 'mmrazor.SingleTeacherDistill')
    ours = feature_distill(distiller=distiller(), **kwargs)
    stock = feature_distill(distiller=stock_distiller(), **kwargs)
    stock.load_state_dict(ours.state_dict())
    data = batch()
    ours_losses = losses_of(ours, copy.deepcopy(data))
    stock_losses = losses_of(stock, data)
    assert ours_losses.keys() == stock_losses.keys()
    for key, value in ours_losses.items():
        torch.testing.assert_close(value, stock_losses[key])


def test_every_parameter_gets_a_gradient():
    model = feature_distill(distiller=distiller())
    step(model, batch())
    assert without_gradient(model) == []


def test_one_config_for_all_makes_a_module_for_each():
    cfg = distiller(
        student_connectors=convolution(4, 4),
        teacher_connectors=convolution(4, 4),
        student_levels=STAGES[:1] * 2,
        teacher_levels=STAGES[:1] * 2,
    )
    model = feature_distill(teacher=classifier(), distiller=cfg)
    names = ['student0', 'student1', 'teacher0', 'teacher1']
    assert sorted(model.distiller.connectors) == names
    assert len({id(m) for m in model.distiller.connectors.values()}) == 4


def test_rows_of_connectors_and_none():
    """Pooled before the convolution, on one level of the three only."""
    rows = [convolution(4, 8), [POOL, convolution(8, 16)], convolution(16, 32)]
    cfg = distiller(student_connectors=rows, teacher_connectors=[None, POOL, None])
    model = feature_distill(distiller=cfg)
    seen = {}
    for i in range(3):
        loss = model.distiller.distill_losses[f'loss_level{i}']
        loss.register_forward_hook(
            lambda _, args, kwargs, out, i=i: seen.update({i: kwargs}), with_kwargs=True
        )
    losses_of(model, batch())
    sizes = [tuple(seen[i]['t_feature'].shape[1:]) for i in range(3)]
    assert sizes == [(8, 8, 8), (16, 2, 2), (32, 2, 2)]
    assert all(k['s_feature'].shape == k['t_feature'].shape for k in seen.values())


def test_a_loss_for_each_level():
    cfg = distiller(
        level_loss=[dict(type='mmrazor.L2Loss', loss_weight=w) for w in (0, 1, 2)]
    )
    model = feature_distill(distiller=cfg)
    plain = feature_distill(distiller=distiller(), teacher=model.teacher)
    plain.load_state_dict(model.state_dict())
    data = batch()
    losses, reference = losses_of(model, copy.deepcopy(data)), losses_of(plain, data)
    for i in range(3):
        key = f'distill.loss_level{i}'
        torch.testing.assert_close(losses[key], i * reference[key])


def test_a_level_may_be_one_and_a_pre_activation():
    level = dict(
        recorder=dict(type='mmrazor.ModuleInputs', source='backbone.layer2.1.relu'),
        record_idx=1,
        data_idx=0,
    )
    cfg = distiller(
        student_levels=level,
        teacher_levels=level,
        student_connectors=[convolution(8, 16)],
    )
    model = feature_distill(distiller=cfg)
    losses = losses_of(model, batch())
    assert [k for k in losses if 'distill' in k] == ['distill.loss_level0']


def test_other_losses_mix_in():
    other = layer_distiller()
    cfg = distiller(
        **{
            key: other[key]
            for key in (
                'student_recorders',
                'teacher_recorders',
                'connectors',
                'distill_losses',
                'loss_forward_mappings',
            )
        }
    )
    losses = losses_of(feature_distill(distiller=cfg), batch())
    assert {'distill.loss_fam', 'distill.loss_level2'} <= set(losses)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(teacher_levels=STAGES[:2]), '3 student levels stand against 2 teacher'),
        (dict(student_levels=[]), 'student_levels is empty'),
        (dict(level_loss=[dict(type='mmrazor.L2Loss')]), 'level_loss: .*3 levels'),
        (
            dict(level_loss=['mmrazor.L2Loss'] * 3),
            'level_loss: got .* of a loss for',
        ),
        (dict(level_loss=[[dict(type='mmrazor.L2Loss')]] * 3), 'level_loss: got'),
        (dict(level_loss=torch.nn.MSELoss()), 'level_loss=MSELoss.*as a config has'),
        (dict(student_connectors=['pool'] * 3), "student_connectors: got 'pool' for"),
        (dict(student_connectors=[POOL]), 'student_connectors: .*3 levels'),
        (dict(teacher_connectors='pool'), 'teacher_connectors: .*3 levels'),
        (dict(connectors=dict(student1=POOL)), r"connectors: \['student1'\] are kept"),
        (
            dict(distill_losses=dict(loss_level0=dict(type='mmrazor.L2Loss'))),
            r"distill_losses: \['loss_level0'\] are kept",
        ),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(distiller(**changes))


def test_sizes_that_disagree():
    cfg = distiller(teacher_connectors=[None, None, POOL])
    model = feature_distill(distiller=cfg)
    expected = r'level 2: .*\(4, 32, 2, 2\).*\(4, 32, 1, 1\).*AvgPool2d'
    with pytest.raises(ValueError, match=expected):
        losses_of(model, batch())


def test_channels_that_disagree():
    model = feature_distill(distiller=distiller(student_connectors=None))
    expected = (
        r'level 0: L2Loss .*\(4, 4, 8, 8\) and \(4, 8, 8, 8\).*student_connectors'
    )
    with pytest.raises(ValueError, match=expected):
        losses_of(model, batch())


def test_a_tuple_is_no_level():
    cfg = distiller(student_connectors=[convolution(4, 8), convolution(8, 16), None])
    cfg['student_levels'] = [*STAGES[:2], 'backbone']
    model = feature_distill(distiller=cfg)
    with pytest.raises(ValueError, match=r"level 2: the student's record is a tuple"):
        losses_of(model, batch())


def test_unknown_layer_lists_near_names():
    with pytest.raises(ValueError, match=r"no layer 'backbone.layer9'.*layer1"):
        feature_distill(
            distiller=distiller(student_levels=['backbone.layer9', *STAGES[1:]])
        )

    with pytest.raises(ValueError, match=r"no layer 'backbone.layer9'.*layer1"):
        feature_distill(
            type='mmrazor.SingleTeacherDistill',
            distiller=distiller(teacher_levels=['backbone.layer9', *STAGES[1:]]),
        )


def test_weights_and_warm_up_of_levels():
    """Of the levels alone: other losses have weights of their own."""
    other = layer_distiller()
    other.pop('type')
    teacher = MODELS.build(classifier(width=8))
    plain = feature_distill(teacher=teacher, distiller=distiller(**other))
    cfg = distiller(loss_weight=[1, 0, 2.5], warmup=dict(end=20), **other)
    model = feature_distill(teacher=teacher, distiller=cfg)
    model.load_state_dict(plain.state_dict())
    MessageHub.get_current_instance().update_info('epoch', 4)
    data = batch()
    losses, reference = losses_of(model, copy.deepcopy(data)), losses_of(plain, data)
    assert losses['distill.warmup'].item() == pytest.approx(0.25)
    assert losses['distill.loss_fam'] == reference['distill.loss_fam']
    for i, weight in enumerate((1, 0, 2.5)):
        key = f'distill.loss_level{i}'
        torch.testing.assert_close(losses[key], 0.25 * weight * reference[key])


def test_padding_is_left_out_of_maps():
    """The right half of each image; a vector has no padding."""
    cfg = distiller(
        student_levels=['backbone.layer1', 'head.fc'],
        teacher_levels=['backbone.layer1', 'head.fc'],
        student_connectors=None,
        level_loss=dict(type='mmengine.PlainError'),
        ignore_padding=True,
    )
    model = feature_distill(teacher=classifier(), distiller=cfg)
    maps = {}
    for role, part in (('student', model.architecture), ('teacher', model.teacher)):
        for name in ('backbone.layer1', 'head.fc'):
            part.get_submodule(name).register_forward_hook(
                lambda _, args, out, key=(role, name): maps.update({key: out})
            )
    data = model.data_preprocessor(batch(), True)
    for sample in data['data_samples']:
        sample.set_field((8, 4), 'img_shape', field_type='metainfo')
    losses = model(**data, mode='loss')
    for i, name in enumerate(('backbone.layer1', 'head.fc')):
        ours, theirs = (maps[role, name] for role in ('student', 'teacher'))
        error = (ours - theirs).square()
        expected = (error[..., :4] if error.dim() == 4 else error).mean()
        torch.testing.assert_close(losses[f'distill.loss_level{i}'], expected)


@MODELS.register_module(force=True)
class PlainError(torch.nn.MSELoss):
    """A user's loss, the mean over all values."""

    mean_over = 'pixels'

    def forward(self, s_feature, t_feature):
        return super().forward(s_feature, t_feature)


def test_bad_weights():
    with pytest.raises(ValueError, match='expected a number'):
        MODELS.build(distiller(loss_weight='1'))
    model = feature_distill(distiller=distiller(loss_weight=[1, 2]))
    with pytest.raises(ValueError, match='2 values for 3 levels'):
        losses_of(model, batch())


FAM = dict(type='mmfakd.FrequencyAttentionConnector')
LAYERS = [
    dict(FAM, in_channels=4 << i, out_channels=8 << i, size=8 >> i) for i in range(3)
]
MSE = dict(type='mmfakd.FFTFeatureLoss', loss_weight=10.0)


def layer_to_layer():
    """The same distillation in the three spellings, the one of today first."""
    stages = {f'stage{i}': name for i, name in enumerate(STAGES)}
    recorders = {
        stage: dict(type='mmrazor.ModuleOutputs', source=name)
        for stage, name in stages.items()
    }
    levels = dict(student_levels=STAGES, teacher_levels=STAGES, level_loss=MSE)
    channels = {
        key: [layer[key] for layer in LAYERS] for key in ('in_channels', 'out_channels')
    }
    connector = dict(type='mmfakd.LayerwiseConnector', sizes=[8, 4, 2], **channels)
    return dict(
        review=dict(type='mmfakd.ReviewDistiller', connector=connector, **levels),
        levels=dict(type='mmfakd.LevelDistiller', student_connectors=LAYERS, **levels),
        stock=dict(
            type='mmrazor.ConfigurableDistiller',
            student_recorders=recorders,
            teacher_recorders=copy.deepcopy(recorders),
            connectors=dict(zip(stages, LAYERS)),
            distill_losses={f'loss_{stage}': MSE for stage in stages},
            loss_forward_mappings={
                f'loss_{stage}': dict(
                    s_feature=dict(recorder=stage, from_student=True, connector=stage),
                    t_feature=dict(recorder=stage, from_student=False),
                )
                for stage in stages
            },
        ),
    )


@pytest.mark.parametrize('old', ['levels', 'stock'])
def test_layer_to_layer_has_one_meaning_in_all_spellings(old):
    """And what was trained in an old one goes on in that of today."""
    teacher = MODELS.build(classifier(width=8))
    models = {
        name: feature_distill(teacher=teacher, distiller=cfg)
        for name, cfg in layer_to_layer().items()
    }
    checkpoint = models[old].state_dict()
    assert f'distiller.connectors.{dict(levels="student0", stock="stage0")[old]}' in {
        key.rpartition('.level.')[0] for key in checkpoint
    }
    models['review'].load_state_dict(checkpoint, strict=True)
    data = batch()
    ours, theirs = (
        losses_of(models[name], copy.deepcopy(data)) for name in ('review', old)
    )
    assert list(ours.values()) == list(theirs.values())
    # In the same order, in which optimizers keep their state.
    pairs = list(zip(models['review'].parameters(), models[old].parameters()))
    assert all(torch.equal(a, b) for a, b in pairs)


def test_other_connectors_are_not_taken_for_layers():
    cfg = layer_to_layer()['review']
    model = feature_distill(distiller=dict(cfg, connectors=dict(mine=LAYERS[0])))
    own = model.state_dict()
    model.load_state_dict(own, strict=True)
    two = feature_distill(distiller=layer_to_layer()['levels']).state_dict()
    two = {k: v for k, v in two.items() if 'student2' not in k}
    with pytest.raises(RuntimeError, match=r'connectors\.student0'):
        model.load_state_dict(two, strict=True)


@MODELS.register_module()
class ErrorOfEachImage(torch.nn.Module):
    """A loss with a value for each image of the batch."""

    def __init__(self, mean=False):
        super().__init__()
        self.mean = mean

    def forward(self, s_feature, t_feature):
        errors = (s_feature - t_feature).square().flatten(1).mean(1)
        return errors.mean() if self.mean else errors


@pytest.mark.parametrize('weight', [0.5, dict(type='balance', iters=2)])
def test_a_loss_of_each_image_is_its_mean(weight):
    """In its value, and in what weights are measured by."""
    found = []
    for mean in (False, True):
        torch.manual_seed(0)
        loss = dict(type='ErrorOfEachImage', mean=mean)
        cfg = distiller(level_loss=loss, loss_weight=weight)
        model = feature_distill(distiller=cfg)
        torch.manual_seed(1)
        losses = step(model, batch())
        found.append((losses, model.distiller.level_weights(3)))
    for name, value in found[0][0].items():
        assert value.dim() == 0
        torch.testing.assert_close(value, found[1][0][name])
    assert found[0][1] == pytest.approx(found[1][1])


@pytest.mark.parametrize('loss', [None, [dict(type='mmrazor.L2Loss'), None, None]])
def test_a_level_without_a_loss(loss):
    with pytest.raises(ValueError, match='level_loss: got .*; expected .* each of 3'):
        MODELS.build(distiller(level_loss=loss))


def test_padding_is_not_ignored_without_the_sizes_of_images():
    """Stock algorithms do not tell them."""
    model = feature_distill(
        type='mmrazor.SingleTeacherDistill', distiller=distiller(ignore_padding=True)
    )
    with pytest.raises(RuntimeError, match='ignore_padding=True needs .*FeatureDist'):
        losses_of(model, batch())
