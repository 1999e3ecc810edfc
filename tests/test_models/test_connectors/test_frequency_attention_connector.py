# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.registry import MODELS
from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn

from mmfakd.models.connectors import FrequencyAttentionConnector


@pytest.mark.parametrize(
    ('arguments', 'shape', 'expected'),
    [
        ({'size': 8}, (2, 4, 4, 4), (2, 6, 8, 8)),
        ({'size': (3, 5)}, (2, 4, 4, 4), (2, 6, 3, 5)),
        ({'modes': 6}, (2, 4, 9, 7), (2, 6, 9, 7)),
        ({'modes': 6, 'scale': 2}, (2, 4, 9, 7), (2, 6, 18, 14)),
        ({'modes': 6, 'mid_channels': 8, 'groups': 2}, (2, 4, 9, 7), (2, 6, 9, 7)),
        ({'size': 1}, (2, 4), (2, 6, 1, 1)),
        ({'size': (8, 9), 'modes': 3}, (2, 4, 9, 7), (2, 6, 8, 9)),
    ],
)
def test_shapes_and_gradients(arguments, shape, expected):
    connector = FrequencyAttentionConnector(4, 6, **arguments)
    prediction = connector(torch.randn(shape))
    assert prediction.shape == expected
    (prediction * torch.randn(expected)).sum().backward()
    assert all(p.grad is not None for p in connector.parameters())
    has_match = any('match' in name for name, _ in connector.named_parameters())
    assert has_match == ('mid_channels' in arguments)


def test_size_and_modes():
    """The filter has the modes, the map the size; the weights are those of modes."""
    both = FrequencyAttentionConnector(4, 6, size=8, modes=3)
    modes = FrequencyAttentionConnector(4, 6, modes=3, scale=2)
    modes.load_state_dict(both.state_dict())
    x = torch.randn(2, 4, 4, 4)
    assert torch.equal(both(x), modes(x))
    with pytest.raises(ValueError, match='is no size'):
        FrequencyAttentionConnector(4, 6, size=0, modes=3)
    with pytest.raises(ValueError, match='exactly one of them'):
        FrequencyAttentionConnector(4, 6)


def test_is_filter_norm_and_activation():
    connector = FrequencyAttentionConnector(4, 6, size=8, act_cfg=dict(type='ReLU'))
    x = torch.randn(2, 4, 8, 8)
    level = connector.level
    expected = nn.functional.batch_norm(
        level.transform(x), None, None, training=True
    ).relu()
    assert torch.allclose(connector(x), expected, atol=1e-5)
    # Without one by default, as the teacher's features are pre-activations.
    assert FrequencyAttentionConnector(4, 6, size=8)(x).min() < 0


def test_match_block():
    block = FrequencyAttentionConnector(4, 6, 8, size=8).level.match
    assert [type(layer).__name__ for layer in block] == [
        'Conv2d',
        'BatchNorm2d',
        'ReLU',
    ]
    connector = FrequencyAttentionConnector(4, 6, size=8, always_match=True)
    assert connector.level.match.conv.weight.shape == (4, 4, 1, 1)


def test_filter_arguments_reach_the_filter():
    connector = FrequencyAttentionConnector(4, 6, size=8, high_pass=0, with_local=False)
    assert connector.level.transform.high_pass == 0
    assert not connector.level.transform.with_local
    with pytest.raises(TypeError, match='highpass'):
        FrequencyAttentionConnector(4, 6, size=8, highpass=0)


def test_init_weights_keeps_the_init():
    connector = FrequencyAttentionConnector(4, 6, 8, size=8)
    before = copy.deepcopy(connector.state_dict())
    connector.init_weights()
    for key, value in connector.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_layer_to_layer_in_the_stock_distiller():
    student, teacher = (
        nn.ModuleDict({'layer': nn.Conv2d(3, c, 3, s)}) for c, s in ((4, 2), (6, 1))
    )
    recorders = dict(layer=dict(type='mmrazor.ModuleOutputs', source='layer'))
    distiller = ConfigurableDistiller(
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=dict(
            fam=dict(
                type='mmfakd.FrequencyAttentionConnector',
                in_channels=4,
                out_channels=6,
                size=8,
            )
        ),
        distill_losses=dict(
            loss_feature=dict(type='mmrazor.L2Loss'),
            loss_fft=dict(type='mmfakd.FFTFeatureLoss', domain='amplitude'),
        ),
        loss_forward_mappings={
            loss: dict(
                s_feature=dict(recorder='layer', from_student=True, connector='fam'),
                t_feature=dict(recorder='layer', from_student=False),
            )
            for loss in ('loss_feature', 'loss_fft')
        },
    )
    distiller.prepare_from_student(student)
    distiller.prepare_from_teacher(teacher)
    x = torch.randn(2, 3, 10, 10)
    with distiller.student_recorders:
        student.layer(x)
    with distiller.teacher_recorders, torch.no_grad():
        teacher.layer(x)
    losses = distiller.compute_distill_losses()
    assert set(losses) == {'loss_feature', 'loss_fft'}
    sum(losses.values()).backward()
    for module in (distiller, student):
        assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize(
    ('x', 'message'),
    [
        (torch.ones(2, 5, 8, 8), 'Connector: got 5 channels .* expected 4'),
        (torch.ones(2, 4, 64), r'got a feature of shape \(2, 4, 64\), expected'),
        ((torch.ones(2, 4, 8, 8),), "got a tuple, .* the recorder's `data_idx`"),
        (torch.ones(1, 4), 'drop_last=True'),
    ],
)
def test_bad_inputs(x, message):
    with pytest.raises(ValueError, match=message):
        FrequencyAttentionConnector(4, 6, modes=1)(x)


@pytest.mark.parametrize('dtype', [torch.complex64, torch.long])
@pytest.mark.parametrize('mid_channels', [4, 2])
def test_bad_dtypes(mid_channels, dtype):
    """Refused before anything is matched or resized."""
    connector = FrequencyAttentionConnector(4, 6, mid_channels, size=4)
    with pytest.raises(TypeError, match=f'^Freq.*Connector: got .*{dtype}, exp'):
        connector(torch.ones(1, 4, 8, 8, dtype=dtype))


@pytest.mark.parametrize('scale', [0, -2, (2, 2), None, float('nan')])
def test_bad_scales(scale):
    with pytest.raises(ValueError, match='FrequencyAttentionConnector got .*no scale'):
        FrequencyAttentionConnector(4, 6, modes=4, scale=scale)


@pytest.mark.parametrize('channels', [4.0, None, [4], 0])
def test_bad_channels(channels):
    with pytest.raises(ValueError, match='Connector got in_channels=.*no number of ch'):
        FrequencyAttentionConnector(channels, 6, 8, modes=4)


def test_builds_from_the_root_registry():
    cfg = dict(
        type='mmfakd.FrequencyAttentionConnector', in_channels=4, out_channels=6, size=8
    )
    assert isinstance(MODELS.build(cfg), FrequencyAttentionConnector)
