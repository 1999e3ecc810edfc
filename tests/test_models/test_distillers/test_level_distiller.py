# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.registry import MODELS

from tests.helpers.toy import (
    LEVELS,
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
    step,
    without_gradient,
)

STAGES = LEVELS[:3]
POOL = dict(
    type='mmrazor.TorchNNConnector',
    module_name='AvgPool2d',
    module_args=dict(kernel_size=2),
)


def conv(in_channel, out_channel, **kwargs):
    return dict(
        type='mmrazor.ConvModuleConnector',
        in_channel=in_channel,
        out_channel=out_channel,
        norm_cfg=dict(type='BN'),
        **kwargs,
    )


def distiller(**kwargs):
    cfg = dict(
        type='mmfakd.LevelDistiller',
        student_levels=STAGES,
        teacher_levels=STAGES,
        level_loss=dict(type='mmrazor.L2Loss'),
        student_connectors=[conv(4, 8), conv(8, 16), conv(16, 32)],
    )
    return dict(cfg, **kwargs)


def stock_distiller():
    """The same, said in the words of mmrazor's distiller."""
    recorders = {s: dict(type='mmrazor.ModuleOutputs', source=s) for s in STAGES}
    return dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorders,
        teacher_recorders=copy.deepcopy(recorders),
        connectors={f'student{i}': conv(4 << i, 8 << i) for i in range(3)},
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
        student_connectors=conv(4, 4),
        teacher_connectors=conv(4, 4),
        student_levels=STAGES[:1] * 2,
        teacher_levels=STAGES[:1] * 2,
    )
    model = feature_distill(teacher=classifier(), distiller=cfg)
    names = ['student0', 'student1', 'teacher0', 'teacher1']
    assert sorted(model.distiller.connectors) == names
    assert len({id(m) for m in model.distiller.connectors.values()}) == 4


def test_rows_of_connectors_and_none():
    """Pooled before the convolution, on one level of the three only."""
    rows = [conv(4, 8), [POOL, conv(8, 16)], conv(16, 32)]
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
        student_levels=level, teacher_levels=level, student_connectors=[conv(8, 16)]
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
    cfg = distiller(student_connectors=[conv(4, 8), conv(8, 16), None])
    cfg['student_levels'] = [*STAGES[:2], 'backbone']
    model = feature_distill(distiller=cfg)
    with pytest.raises(ValueError, match=r"level 2: the student's record is a tuple"):
        losses_of(model, batch())


def test_unknown_layer_lists_near_names():
    with pytest.raises(ValueError, match=r"no layer 'backbone.layer9'.*layer1"):
        feature_distill(
            distiller=distiller(student_levels=['backbone.layer9', *STAGES[1:]])
        )
