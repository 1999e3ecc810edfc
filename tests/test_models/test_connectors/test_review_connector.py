# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn

from mmfakd.models.connectors import FrequencyAttentionConnector, ReviewConnector
from mmfakd.models.losses import HierarchicalContextLoss
from mmfakd.utils import convert_famkd_state_dict
from tests.helpers.golden import distance, load_golden, strip_prefix

REVIEW_KD = dict(
    fusion=dict(type='mmfakd.AttentionBasedFusion'),
    transform=dict(type='mmfakd.ConvTransform'),
    always_match=True,
    match_act_cfg=None,
    act_cfg=None,
)
REVIEW_KD_NAMES = {
    'conv1.0.': 'match.conv.',
    'conv1.1.': 'match.norm.',
    'conv2.0.': 'transform.conv.',
    'conv2.1.': 'norm.',
    'att_conv.0.': 'fusion.attention.',
}


def golden_chain(name, dtype=torch.float32):
    """Connector, student and teacher features of a golden review chain."""
    golden = load_golden(f'review_chain_{name}')
    connector = ReviewConnector(
        golden['in_channels_x'].tolist(),
        golden['out'].tolist(),
        mid_channels=golden['mid'].tolist(),
        sizes=golden['shapes'].flip(0).tolist(),
    )
    state = convert_famkd_state_dict(strip_prefix(golden, 'state.'))
    connector.load_state_dict(state)
    levels = range(len(golden['shapes']))
    students = [golden[f'student{i}'].to(dtype).requires_grad_() for i in levels]
    teachers = [golden[f'teacher{i}'].to(dtype) for i in levels]
    return golden, connector.to(dtype), students, teachers


def squared_error(predictions, teachers):
    return sum((p - t).square().mean() for p, t in zip(predictions, teachers))


# In float32 one of small4's pre-activations lies within rounding error of zero, so
# that its gradients depend on the processor; in float64 they do not.
@pytest.mark.parametrize(
    ('name', 'dtype'),
    [
        ('mid3', torch.float32),
        ('mid3', torch.float64),
        ('small4', torch.float64),
    ],
)
def test_golden_gradients(name, dtype):
    golden, connector, students, teachers = golden_chain(name, dtype)
    squared_error(connector(students), teachers).backward()
    for i, student in enumerate(students):
        assert distance(student.grad, golden[f'grad_student{i}']) < 1e-4
    assert all(p.grad.abs().sum() > 0 for p in connector.parameters())


@pytest.mark.parametrize('name', ['mid3', 'small4'])
def test_golden_outputs_and_training(name):
    golden, connector, students, teachers = golden_chain(name)
    optimizer = torch.optim.SGD(
        connector.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
    )
    losses = []
    for step in range(5):
        predictions = connector(students)
        if step == 0:
            for i, prediction in enumerate(predictions):
                assert distance(prediction, golden[f'out{i}']) < 1e-5
        loss = squared_error(predictions, teachers)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(golden['loss'].item(), rel=1e-5)
    assert losses == pytest.approx(golden['sgd_losses'].tolist(), rel=1e-4)


def test_golden_review_kd():
    golden = load_golden('review_kd_small4')
    connector = ReviewConnector(
        golden['in_channels'].tolist(),
        golden['out'].tolist(),
        mid_channels=golden['mid'].item(),
        sizes=golden['shapes'].flip(0).tolist(),
        **REVIEW_KD,
    )
    state = {}
    for key, value in strip_prefix(golden, 'state.').items():
        level, name = key.split('.', 1)
        prefix = next(p for p in REVIEW_KD_NAMES if name.startswith(p))
        name = REVIEW_KD_NAMES[prefix] + name[len(prefix) :]
        state[f'levels.{3 - int(level)}.{name}'] = value
    connector.load_state_dict(state)
    predictions = connector([golden[f'student{i}'] for i in range(4)])
    for i, prediction in enumerate(predictions):
        assert distance(prediction, golden[f'out{i}']) < 1e-5
    loss = HierarchicalContextLoss()(
        predictions, [golden[f'teacher{i}'] for i in range(4)]
    )
    assert loss.item() == pytest.approx(golden['loss'].item(), rel=1e-5)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in connector.parameters())


def features(*shapes):
    return [torch.randn(2, *shape) for shape in shapes]


def test_builds_from_the_root_registry():
    connector = MODELS.build(
        dict(
            type='mmfakd.ReviewConnector',
            in_channels=[4, 8],
            out_channels=[6, 8],
            sizes=[8, 4],
        )
    )
    assert isinstance(connector, ReviewConnector)
    predictions = connector(features((4, 8, 8), (8, 4, 4)))
    assert isinstance(predictions, tuple)
    assert [tuple(p.shape) for p in predictions] == [(2, 6, 8, 8), (2, 8, 4, 4)]


@pytest.mark.parametrize('recipe', [{}, REVIEW_KD])
@pytest.mark.parametrize('mid_channels', [None, 6, [4, 6, 10]])
def test_builds_nothing_that_cannot_learn(recipe, mid_channels):
    connector = ReviewConnector(
        [4, 6, 6], [8, 8, 10], mid_channels=mid_channels, sizes=[8, (4, 5), 1], **recipe
    )
    loss = squared_error(
        connector(features((4, 8, 8), (6, 4, 4), (6,))),
        features((8, 8, 8), (8, 4, 5), (10, 1, 1)),
    )
    loss.backward()
    assert all(p.grad is not None for p in connector.parameters())
    names = {name.split('.')[2] for name, _ in connector.named_parameters()}
    assert ('match' in names) == (mid_channels is not None or bool(recipe))
    assert not any(n.startswith('levels.2.fusion') for n in connector.state_dict())


def test_blocks_exist_where_channels_differ():
    connector = ReviewConnector([4, 8, 8], [4, 8, 8], [4, 4, 8], sizes=[4, 2, 1])
    blocks = {
        name.rsplit('.conv.', 1)[0]
        for name in connector.state_dict()
        if 'match' in name and 'conv.' in name
    }
    assert blocks == {'levels.1.match', 'levels.1.match_deeper'}


def test_sizes_of_predictions():
    # Without `sizes`: the student's times the scale, for inputs of any size.
    connector = ReviewConnector([4, 4], [6, 6], scales=[1, 2])
    assert connector.levels[0].transform.modes == (16, 16)
    for height, width in [(8, 12), (13, 9)]:
        shallow, deep = connector(features((4, height, width), (4, height, width)))
        assert shallow.shape[-2:] == (height, width)
        assert deep.shape[-2:] == (2 * height, 2 * width)
    # As a convolution of stride two halves.
    halved = ReviewConnector([4], [6], scales=0.5)
    for height, width in [(5, 1), (13, 14), (15, 6)]:
        stride = nn.functional.max_pool2d(torch.ones(1, 1, height, width), 1, 2)
        assert halved(features((4, height, width)))[0].shape[-2:] == stride.shape[-2:]
    fixed = ReviewConnector([4, 4], [6, 6], sizes=[(6, 5), 3])
    shapes = [tuple(p.shape[-2:]) for p in fixed(features((4, 8, 8), (4, 8, 8)))]
    assert shapes == [(6, 5), (3, 3)]


def nearest(x, size):
    """Nearest neighbours by their indices: floor(i * old / new)."""
    rows, columns = (
        torch.div(torch.arange(new) * old, new, rounding_mode='floor')
        for new, old in zip(size, x.shape[-2:])
    )
    return x[:, :, rows][:, :, :, columns]


# Student and teacher grids of three levels.
GRIDS = {
    'to a finer grid': ([(4, 4)] * 3, [(8, 8)] * 3),
    'to a coarser grid': ([(8, 8)] * 3, [(4, 4)] * 3),
    'to an odd grid': ([(8, 8), (4, 4), (2, 2)], [(7, 7)] * 3),
    'to a plain ViT': ([(8, 8), (4, 4), (2, 2)], [(4, 4)] * 3),
    'from a plain ViT': ([(4, 4)] * 3, [(8, 8), (4, 4), (2, 2)]),
    'of equal levels': ([(5, 7)] * 3, [(5, 7)] * 3),
    'with a larger deep level': ([(2, 2), (4, 4), (8, 8)], [(2, 2), (4, 4), (8, 8)]),
    'from a vector': ([(4, 4), (4, 4), (1, 1)], [(4, 4), (2, 2), (4, 4)]),
}


@pytest.mark.parametrize('by', ['sizes', 'scales'])
@pytest.mark.parametrize('grids', GRIDS.values(), ids=GRIDS)
def test_pyramid_over_any_grids(grids, by):
    students, teachers = grids
    scales = [teacher[0] / student[0] for student, teacher in zip(*grids)]
    sizing = dict(sizes=teachers) if by == 'sizes' else dict(scales=scales)
    connector = ReviewConnector([4, 6, 8], [3, 5, 7], **sizing).double()
    features = [
        torch.randn(2, c, *size, dtype=torch.double, requires_grad=True)
        for c, size in zip((4, 6, 8), students)
    ]
    predictions = connector(features)
    sum((p * torch.randn_like(p)).sum() for p in predictions).backward()
    assert all(p.grad.any() for p in connector.parameters())
    assert all(x.grad.any() for x in features)
    # Once more, level by level: a deeper level is brought to this one's grid, their
    # fusion to the teacher's.
    fused = None
    for level, x, size, prediction in list(
        zip(connector.levels, features, teachers, predictions)
    )[::-1]:
        if fused is not None:
            fused = nearest(level.match_deeper(fused), x.shape[-2:])
            x = level.fusion(x, fused)
        fused = nearest(x, size)
        expected = level.act(level.norm(level.transform(fused)))
        assert prediction.shape[-2:] == size
        torch.testing.assert_close(prediction, expected)


def test_transform_config():
    connector = ReviewConnector(
        [4, 4], [6, 6], transform=dict(type='mmfakd.FrequencyAttention', modes=(3, 5))
    )
    assert [x.transform.modes for x in connector.levels] == [(3, 5)] * 2
    connector = ReviewConnector(
        [4, 4],
        [6, 6],
        sizes=[4, 2],
        transform=[
            dict(type='mmfakd.FrequencyAttention', high_pass=0),
            dict(type='mmfakd.ConvTransform'),
        ],
    )
    assert connector.levels[0].transform.size == (4, 4)
    assert connector.levels[0].transform.high_pass == 0
    assert type(connector.levels[1].transform).__name__ == 'ConvTransform'
    # What the caller's dict holds stays as it is.
    cfg = dict(type='mmfakd.FrequencyAttention')
    ReviewConnector([4], [4], sizes=[4], transform=cfg)
    assert cfg == dict(type='mmfakd.FrequencyAttention')


def test_passes_on_the_feature_before_the_transform():
    connector = ReviewConnector([4, 4], [4, 4], sizes=[4, 2]).eval()
    inputs = features((4, 4, 4), (4, 2, 2))
    before = connector(inputs)
    with torch.no_grad():
        connector.levels[1].transform.filter.zero_()
        connector.levels[1].norm.weight.zero_()
    after = connector(inputs)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])
    inputs[1] = inputs[1] + 1
    assert not torch.equal(connector(inputs)[0], before[0])


def test_init_weights_keeps_the_init():
    connector = ReviewConnector([4, 8], [4, 8], mid_channels=16, sizes=[4, 2])
    before = copy.deepcopy(connector.state_dict())
    connector.init_weights()
    for key, value in connector.state_dict().items():
        assert torch.equal(value, before[key]), key
    weight = ReviewConnector([64], [4], 128, sizes=[2]).levels[0].match.conv.weight
    bound = (3 / 64) ** 0.5  # kaiming_uniform with a = 1
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    'norm_cfg', [None, dict(type='GN', num_groups=2), dict(type='SyncBN')]
)
def test_norms(norm_cfg):
    connector = ReviewConnector(
        [4, 8], [4, 8], mid_channels=6, sizes=[4, 2], norm_cfg=norm_cfg
    )
    inputs = features((4, 4, 4), (8, 2, 2))
    assert (connector.levels[0].match.conv.bias is None) == (norm_cfg is not None)
    if norm_cfg and norm_cfg['type'] == 'SyncBN':
        assert any(isinstance(m, nn.SyncBatchNorm) for m in connector.modules())
        connector.eval()(inputs)
        connector = revert_sync_batchnorm(connector).train()
    squared_error(connector(inputs), features((4, 4, 4), (8, 2, 2))).backward()
    assert all(p.grad is not None for p in connector.parameters())


def test_half_precision_under_autocast():
    connector = ReviewConnector([4, 8], [4, 8], mid_channels=6, sizes=[4, 2])
    inputs = features((4, 4, 4), (8, 2, 2))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        predictions = connector([inputs[0], inputs[1].bfloat16()])
        loss = squared_error(predictions, inputs)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in connector.parameters())


def test_copies_and_state_round_trip():
    connector = ReviewConnector([4, 8], [4, 8], sizes=[4, 2]).eval()
    other = ReviewConnector([4, 8], [4, 8], sizes=[4, 2]).eval()
    other.load_state_dict(connector.state_dict())
    inputs = features((4, 4, 4), (8, 2, 2))
    for module in (other, copy.deepcopy(connector)):
        for a, b in zip(module(inputs), connector(inputs)):
            assert torch.equal(a, b)


class Neck(nn.Module):
    """A neck as detectors have it: several maps of one width."""

    def __init__(self, channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, channels, 3, s) for s in (1, 2))

    def forward(self, x):
        return tuple(conv(x) for conv in self.convs)


def test_serves_necks_in_the_stock_distiller():
    student, teacher = (nn.ModuleDict({'neck': Neck(c)}) for c in (4, 6))
    recorders = dict(neck=dict(type='mmrazor.ModuleOutputs', source='neck'))
    distiller = ConfigurableDistiller(
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=dict(
            review=dict(
                type='mmfakd.ReviewConnector', in_channels=[4, 4], out_channels=[6, 6]
            )
        ),
        distill_losses=dict(loss_hcl=dict(type='mmfakd.HierarchicalContextLoss')),
        loss_forward_mappings=dict(
            loss_hcl=dict(
                s_feature=dict(recorder='neck', from_student=True, connector='review'),
                t_feature=dict(recorder='neck', from_student=False),
            )
        ),
    )
    distiller.prepare_from_student(student)
    distiller.prepare_from_teacher(teacher)
    x = torch.randn(2, 3, 17, 12)
    with distiller.student_recorders:
        student.neck(x)
    with distiller.teacher_recorders, torch.no_grad():
        teacher.neck(x)
    losses = distiller.compute_distill_losses()
    losses['loss_hcl'].backward()
    for module in (distiller, student):
        assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'out_channels': [4]}, r'out_channels for 1 levels \(\[4\]\), expected 2'),
        ({'mid_channels': [4, 4, 4]}, 'mid_channels for 3 levels'),
        ({'sizes': [4]}, 'sizes for 1 levels'),
        ({'sizes': [4, 2], 'scales': 1}, 'at most one'),
        ({'mid_channels': 5}, 'channels=5, expected an even number'),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {'in_channels': [4, 4], 'out_channels': [4, 4], **arguments}
    with pytest.raises(ValueError, match=message):
        ReviewConnector(**arguments)


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (features((4, 4, 4)), 'a sequence of 2 features, .* got 1 of them'),
        (torch.ones(2, 4, 4, 4), r'got one tensor of shape \(2, 4, 4, 4\)'),
        (
            features((4, 4, 4), (4, 2, 2)),
            r'level 1 \(of 0 to 1\): got 4 channels .*\(2, 4, 2, 2\)\), expected 8',
        ),
        (
            features((4, 16), (8,)),
            r'level 0 .* got a feature of shape \(2, 4, 16\).*`tokens` of the level',
        ),
        (
            features((4, 4, 4), (2, 2, 8)),
            r'level 1 .* got 2 channels .*last: tokens=dict\(channels_last=True\)',
        ),
        ([None, torch.ones(2, 8)], 'level 0 .* got a NoneType, expected a tensor'),
        (
            [torch.ones(1, 4, 4, 4), torch.ones(1, 8)],
            r'level 1 .* more than 1 value per channel .*drop_last=True',
        ),
    ],
)
def test_bad_inputs(inputs, message):
    connector = ReviewConnector([4, 8], [4, 8])
    with pytest.raises(ValueError, match=message):
        connector(inputs)


@pytest.mark.parametrize('level', [0, 1])
@pytest.mark.parametrize('dtype', [torch.complex64, torch.long])
@pytest.mark.parametrize('form', [dict(), REVIEW_KD])
def test_bad_dtypes_name_the_level(form, dtype, level):
    inputs = features((4, 4, 4), (8, 2, 2))
    inputs[level] = inputs[level].to(dtype)
    message = rf'^ReviewConnector, level {level} \(of 0 to 1\): got .*{dtype}, expected'
    with pytest.raises(TypeError, match=message):
        ReviewConnector([4, 8], [4, 8], **form)(inputs)


def test_wrong_size_for_a_dense_filter_names_the_level():
    transform = dict(type='mmfakd.FrequencyAttention', size=4)
    connector = ReviewConnector([4, 8], [4, 8], transform=transform)
    message = r'level 0 .* 6x4 pixels, expected 4x4: resize'
    with pytest.raises(ValueError, match=message):
        connector(features((4, 6, 4), (8, 4, 4)))


@pytest.mark.parametrize('kind', ['ReviewConnector', 'LayerwiseConnector'])
@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(in_channels=4), 'in_channels=4, expected a sequence'),
        (dict(in_channels='x'), "in_channels='x', expected a sequence"),
        (dict(in_channels=[]), r'in_channels=\[\], expected a sequence'),
        (dict(in_channels=[8, -8]), 'in_channels=.* -8 of level 1 is no number of'),
        (dict(in_channels=[8.0, 8]), 'in_channels=.* 8.0 of level 0 is no number of'),
        (dict(out_channels=None), 'out_channels=None: None of level 0'),
        (dict(out_channels=[8, 0]), 'out_channels=.* 0 of level 1'),
        (dict(sizes=[8, 4.0]), 'sizes=.* 4.0 of level 1 is no size; .*height, width'),
        (dict(sizes=[8, -1]), r'sizes=.* \(-1, -1\) of level 1 is no size'),
        (dict(sizes=[[8, 8, 8], 4]), r'sizes=.* \[8, 8, 8\] of level 0 is no size'),
        (dict(sizes=None, scales=0), 'scales=0: 0 of level 0 is no scale; .*above 0'),
        (dict(sizes=None, scales=[1, -1]), 'scales=.* -1 of level 1 is no scale'),
        (dict(sizes=None, scales=[1, 'x']), "scales=.* 'x' of level 1 is no scale"),
    ],
)
def test_bad_numbers(kind, changes, message):
    cfg = dict(in_channels=[8, 8], out_channels=[8, 8], sizes=[8, 4])
    with pytest.raises(ValueError, match=f'^{kind} got {message}'):
        MODELS.build(dict(dict(cfg, type=f'mmfakd.{kind}'), **changes))


@pytest.mark.parametrize(
    ('transform', 'modes', 'groups'),
    [
        (dict(), 16, 16),
        (dict(groups=1), 16, 1),
        # What names its modes stays as it was before wide filters had groups.
        (dict(modes=4), 4, 1),
    ],
)
def test_filters_of_wide_pyramids_have_groups(transform, modes, groups):
    transform = dict(transform, type='mmfakd.FrequencyAttention')
    connector = ReviewConnector([256], [256], transform=transform)
    [level] = connector.levels
    assert (level.transform.modes, level.transform.groups) == ((modes, modes), groups)


@pytest.mark.parametrize('channels', [6, 8])
def test_layer_norm_of_rows_is_refused(channels):
    """Where the channels are as many as a row has pixels it would not even fail."""
    for build in (
        lambda cfg: ReviewConnector([8], [channels], sizes=[8], norm_cfg=cfg),
        lambda cfg: FrequencyAttentionConnector(8, channels, size=8, norm_cfg=cfg),
    ):
        with pytest.raises(ValueError, match=r"norm_cfg=.*'LN'.*rows.*num_groups=1"):
            build(dict(type='LN'))


@pytest.mark.parametrize(
    'norm_cfg', [dict(type='GN', num_groups=1), dict(type='mmpretrain.LN2d')]
)
def test_layer_norms_of_channels(norm_cfg):
    connector = ReviewConnector([4], [6], sizes=[8], norm_cfg=norm_cfg, act_cfg=None)
    (prediction,) = connector([torch.randn(2, 4, 8, 8)])
    normalised = (1, 2, 3) if norm_cfg['type'] == 'GN' else 1
    means = prediction.mean(normalised)
    torch.testing.assert_close(means, torch.zeros_like(means), rtol=0, atol=1e-5)


def test_levels_without_fusion_are_on_their_own():
    connector = ReviewConnector([8, 8], [8, 8], sizes=[8, 4], fusion=None)
    assert [level.fusion for level in connector.levels] == [None, None]
    features = [torch.rand(2, 8, size, size) for size in (8, 4)]
    for index in (0, 1):
        changed = [
            x + (i == index) * torch.rand_like(x) for i, x in enumerate(features)
        ]
        same = [
            torch.equal(one, other)
            for one, other in zip(connector(features), connector(changed))
        ]
        assert same == [index == 1, index == 0]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(transform='mmfakd.ConvTransform'), 'transform'),
        (dict(transform=None), 'level 0 .*: transform=None; expected dict'),
        (dict(fusion=[]), r'level 0 .*: fusion=\[\]; expected dict'),
        (dict(in_channels=[8, 15, 8]), r'level 1 \(of 0 to 2, .*channels=15, expected'),
        (dict(transform=dict(type='mmfakd.FrequencyAttention', groups=3)), 'level 0 '),
    ],
)
def test_bad_layers_name_the_level(changes, message):
    cfg = dict(in_channels=[8, 8, 8], out_channels=8, sizes=[8, 4, 2])
    with pytest.raises(ValueError, match=message):
        ReviewConnector(**dict(cfg, **changes))
