# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch
from mmengine.registry import MODELS

from mmfakd.models.connectors import (
    FrequencyAttentionConnector,
    LayerwiseConnector,
    ReviewConnector,
)

FILTERS = dict(type='mmfakd.FrequencyAttentionConnector', modes=5)


def features(batch=2):
    return [torch.randn(batch, 4, 7, 7), torch.randn(batch, 6, 3, 3)]


def test_levels_are_independent_connectors():
    connector = LayerwiseConnector(
        [4, 6],
        [8, 12],
        sizes=[(14, 13), 6],
        connector=dict(type='mmfakd.FrequencyAttentionConnector', high_pass=0),
    )
    assert all(type(m) is FrequencyAttentionConnector for m in connector.levels)
    assert [m.level.transform.high_pass for m in connector.levels] == [0, 0]
    x = features()
    predictions = connector(x)
    assert [p.shape for p in predictions] == [(2, 8, 14, 13), (2, 12, 6, 6)]
    for level, feature, prediction in zip(connector.levels, x, predictions):
        assert torch.equal(level(feature), prediction)
    # The deeper level does not act on the shallower one.
    changed = connector([x[0], torch.randn_like(x[1])])
    assert torch.equal(changed[0], predictions[0])
    assert not torch.equal(changed[1], predictions[1])


def test_levels_whose_filters_have_modes():
    """As planned where a dense filter would be too large."""
    kind = 'mmfakd.FrequencyAttentionConnector'
    connector = LayerwiseConnector(
        [4, 6],
        [8, 12],
        sizes=[(14, 13), 6],
        connector=[dict(type=kind, modes=5, groups=2), dict(type=kind)],
    )
    assert connector.levels[0].level.transform.modes == (5, 5)
    assert connector.levels[1].level.transform.size == (6, 6)
    shapes = [p.shape for p in connector(features())]
    assert shapes == [(2, 8, 14, 13), (2, 12, 6, 6)]


@pytest.mark.parametrize('teachers', [[14, 6], [(4, 5), 2], [7, 3]])
def test_resizes_as_the_review_does(teachers):
    """The deepest level of a review has no deeper one to learn from."""
    x = features()
    connector = LayerwiseConnector([4, 6], [8, 12], sizes=teachers)
    for i, prediction in enumerate(connector(x)):
        review = ReviewConnector(
            [x[i].shape[1]],
            [prediction.shape[1]],
            sizes=teachers[i : i + 1],
            act_cfg=None,
        )
        review.levels[0].load_state_dict(connector.levels[i].level.state_dict())
        assert torch.equal(review([x[i]])[0], prediction)


def test_scales():
    filters = dict(type='mmfakd.FrequencyAttentionConnector', modes=5)
    connector = LayerwiseConnector([4, 6], [8, 12], scales=[2, 0.5], connector=filters)
    assert [p.shape for p in connector(features())] == [(2, 8, 14, 14), (2, 12, 2, 2)]
    same = LayerwiseConnector([4, 6], [8, 12], scales=2, connector=filters)
    assert [m.level.scale for m in same.levels] == [2, 2]


def test_each_level_may_have_its_own():
    kind = 'mmfakd.FrequencyAttentionConnector'
    configs = [dict(type=kind, modes=5, groups=2), dict(type=kind, modes=3)]
    connector = LayerwiseConnector([4, 6], [8, 12], connector=configs)
    transforms = [level.level.transform for level in connector.levels]
    assert [transform.groups for transform in transforms] == [2, 1]
    assert [transform.modes for transform in transforms] == [(5, 5), (3, 3)]
    assert [p.shape for p in connector(features())] == [(2, 8, 7, 7), (2, 12, 3, 3)]


def test_gradients_and_state_dict():
    connector = MODELS.build(
        dict(
            type='mmfakd.LayerwiseConnector',
            in_channels=[4, 6],
            out_channels=[8, 12],
            connector=dict(type='mmfakd.FrequencyAttentionConnector', modes=5),
        )
    )
    sum((p * torch.randn_like(p)).sum() for p in connector(features())).backward()
    assert all(p.grad is not None for p in connector.parameters())
    other = LayerwiseConnector(
        [4, 6],
        [8, 12],
        connector=dict(type='mmfakd.FrequencyAttentionConnector', modes=5),
    )
    other.load_state_dict(connector.state_dict())
    x = features()
    for a, b in zip(connector(x), other(x)):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(out_channels=[8, 12], connector=[{}] * 3), 'connector for 3 levels'),
        (dict(out_channels=[8, 12], connector=None), 'connector=None for level 0; exp'),
        (
            dict(out_channels=[8, 12], connector=[FILTERS, None]),
            'connector=None for level 1; expected dict',
        ),
        (
            dict(out_channels=[8, 12], connector=dict(modes=4)),
            "connector={'modes': 4} for level 0; expected dict",
        ),
        (dict(out_channels=[8]), 'out_channels for 1 levels'),
        (dict(out_channels=[8, 12], sizes=[7]), 'sizes for 1 levels'),
        (dict(out_channels=[8, 12], scales=[1]), 'scales for 1 levels'),
        (dict(out_channels=[8, 12], sizes=[7, 3], scales=1), 'expected at most one'),
        (dict(out_channels=[8, 12]), 'exactly one of them'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerwiseConnector([4, 6], **arguments)


@pytest.mark.parametrize(
    ('x', 'message'),
    [
        (features()[:1], 'a sequence of 2 features, shallow to deep, and got 1'),
        (features()[0], 'and got one tensor of shape'),
        (features()[::-1], 'level 0: .*got 6 channels'),
        ([features(1)[0], torch.randn(1, 6, 1, 1)], 'level 1: .*at least two images'),
    ],
)
def test_bad_features(x, message):
    connector = LayerwiseConnector([4, 6], [8, 12], sizes=[7, 1])
    with pytest.raises(ValueError, match=message):
        connector(x)


def test_bad_dtypes_name_the_level():
    connector = LayerwiseConnector([4, 6], [8, 12], sizes=[7, 1])
    x = features()
    with pytest.raises(TypeError, match='^level 1: .*got .*complex64, expected real'):
        connector([x[0], x[1] + 0j])
