# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Layers of any module become levels: names, parts, calls, layouts."""

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from weakref import ref

import pytest
import torch
import torchvision
from mmengine.config import Config
from torch import Tensor, nn

import mmfakd
from mmfakd.plain.layer import Layer
from mmfakd.plain.methods import Method
from mmfakd.plain.watched_model import MapInfo
from tests.helpers.plain_models import distilled, images, network, pair

tv = torchvision.models
CONFIGS = Path(__file__).resolve().parents[2] / 'configs/fakd'


def shapes(made, side=0):
    return [(info.channels, *info.size) for info in made._sides[side].maps]


def learns(made, student, *inputs, **kwargs):
    """Whether a step gives gradients to the connectors, and to the student."""
    student(*inputs, **kwargs)
    loss = made.loss()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in made.parameters())
    return any(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize(
    ('student', 'teacher', 'layers', 'expected'),
    [
        (
            lambda: tv.SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4]),
            lambda: tv.resnet18(),
            {'features.1': 'layer1', 'features.3': 'layer2'},
            ([(12, 16, 16), (24, 8, 8)], [(64, 16, 16), (128, 8, 8)]),
        ),
        (
            lambda: tv.VisionTransformer(64, 16, 2, 2, 16, 32),
            lambda: tv.VisionTransformer(64, 16, 2, 2, 24, 32),
            ['encoder.layers.encoder_layer_0', 'encoder'],
            ([(16, 4, 4)] * 2, [(24, 4, 4)] * 2),
        ),
        (
            lambda: tv.mobilenet_v3_small(),
            lambda: tv.resnet18(),
            {'features.1': 'layer1', 'features.3': 'layer2', 'avgpool': 'avgpool'},
            (
                [(16, 16, 16), (24, 8, 8), (576, 1, 1)],
                [(64, 16, 16), (128, 8, 8), (512, 1, 1)],
            ),
        ),
    ],
)
def test_layouts_are_found(student, teacher, layers, expected):
    torch.manual_seed(0)
    student, teacher = student(), teacher()
    example = torch.zeros(1, 3, 64, 64)
    made = mmfakd.distill(student, teacher, layers, None, example, report=False)
    assert shapes(made) == expected[0]
    assert shapes(made, 1) == expected[1]
    assert learns(made, student, torch.rand(2, 3, 64, 64))


def convnext():
    config = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([config(16, 32, 1), config(32, None, 1)])


@pytest.mark.parametrize('layer', ['features.1', 'features.1.0'])
@pytest.mark.parametrize(
    ('make', 'layout'),
    [
        (lambda: tv.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4]), 'NHWC'),
        (convnext, 'NCHW'),
    ],
)
def test_a_map_as_wide_as_it_has_channels(make, layout, layer):
    """What other layers of its class yield tells: here all is (1, 16, 16, 16)."""
    torch.manual_seed(0)
    example = torch.zeros(1, 3, 64, 64)
    made = distilled(
        network(), make(), ['0'], teacher_layers=[layer], example_input=example,
        method='fitnet',
    )  # fmt: skip
    assert made._sides[1].layers[0].layout == layout


def test_channels_last_maps_are_turned_as_they_stand():
    torch.manual_seed(0)
    student = tv.SwinTransformer([4, 4], 12, [2], [2], [4, 4])
    made = distilled(
        student, network(), ['features.1'], teacher_layers=['0'],
        example_input=torch.zeros(1, 3, 16, 16), method='fitnet',
    )  # fmt: skip
    seen = []
    student.features[1].register_forward_hook(lambda m, a, out: seen.append(out))
    student(images())
    ours = made._sides[0].read()[0]
    torch.testing.assert_close(ours, seen[0].permute(0, 3, 1, 2))


class Named(nn.Module):
    """Layers that return what the libraries' do."""

    Pair = namedtuple('Pair', 'logits aux')

    def __init__(self, width=4):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.act = nn.ReLU(inplace=True)
        self.neck = Neck()
        self.tokens = Tokens(width)
        self.head = nn.Linear(width, 5)

    def forward(self, pixels, scale=None):
        x = self.act(self.act(self.embed(pixels)) - 0.5)
        maps = self.neck(x)
        tokens = self.tokens(maps['out']['deep'])[0]
        return self.Pair(self.head(tokens[:, 0]), None)


class Neck(nn.Module):
    def forward(self, x):
        return dict(out=dict(shallow=x, deep=2 * x), shape=x.shape)


class Tokens(nn.Module):
    """One class token, those of a grid, and something beside them."""

    def __init__(self, width):
        super().__init__()
        self.cls = nn.Parameter(torch.rand(1, 1, width))

    def forward(self, x):
        patches = x.flatten(2).transpose(1, 2)
        both = torch.cat([self.cls.expand(len(x), -1, -1), patches], dim=1)
        return both, both.mean(1, keepdim=True)


def test_parts_calls_and_keys():
    torch.manual_seed(0)
    student, teacher = Named(), Named(6)
    layers = [
        dict(name='act', call=1),
        dict(name='neck', index=('out', 'deep')),
        dict(name='tokens', index=0),
        dict(name='', index=0),
    ]
    example = dict(pixels=torch.zeros(1, 3, 16, 16))
    made = distilled(student, teacher, layers, example_input=example, kd_weight=1.0)
    assert shapes(made) == [(4, 4, 4)] * 3 + [(5, 1, 1)]
    assert learns(made, student, pixels=images(), scale=None)
    assert list(made.losses) == ['loss_kd', *(f'loss_level{i}' for i in range(4))]
    assert "neck['out']['deep']" in repr(made)


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        ('act', r"runs 2 times in a forward pass. .*dict\(name='act', call=0\)"),
        (dict(name='act', call=2), 'expected `call` to be below 2'),
        (
            'neck',
            r"returned a dict with \['out'\]\['shallow'\] .*dict\(name=..., index",
        ),
        (dict(name='neck', index='in'), "finds no part 'in' in a dict"),
        (dict(name='embed', layout='NLC'), "layout='NLC' expects a tensor of three"),
        (dict(name='embed', layout='NC'), 'expected dict.*`layout` one of'),
        (dict(name='embed', index=2.5), 'expected dict'),
        (dict(name='embed', tokens=dict(size='x')), 'tokens: got'),
        (dict(recorder='embed'), 'expected the name of a layer'),
        ('head.bias', "has no layer 'head.bias'. Nearest names: 'head'"),
        ('neck.fpn', "no layer 'neck.fpn'"),
        (nn.Identity(), 'a given Identity is no layer of the student'),
    ],
)
def test_layers_that_are_none(layer, message):
    with pytest.raises(ValueError, match=message):
        distilled(Named(), Named(), [layer])


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.idle(x) if self.training else self.used(x)


def test_layers_that_do_not_run():
    with pytest.raises(
        ValueError, match="'idle': the layer did not run on the example"
    ):
        distilled(Idle(), Idle(), ['idle'])
    student = Idle()
    made = distilled(student, Idle(), ['used'])
    student(images())
    with pytest.raises(RuntimeError, match='the student has not run'):
        made.loss()
    made.close()
    made = distilled(student, Idle(), ['used', ''])
    student(images())
    with pytest.raises(RuntimeError, match="'used' did not run .*'output' did. Record"):
        made.loss()


class Text(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.embed = nn.Embedding(30, width)
        self.mix = nn.Linear(width, width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, input_ids, mask=None):
        x = self.mix(self.embed(input_ids))
        return dict(logits=self.conv(x.transpose(1, 2)).mean(2))


def test_sequences_are_maps_of_height_one():
    torch.manual_seed(0)
    student, teacher = Text(8), Text(12)
    ids = torch.randint(30, (3, 7))
    layers = ['mix', dict(name='conv', layout='NCL')]
    made = distilled(student, teacher, layers, example_input=dict(input_ids=ids[:1]))
    assert shapes(made) == [(8, 1, 7)] * 2 and shapes(made, 1) == [(12, 1, 7)] * 2
    assert learns(made, student, input_ids=ids)
    made.close()
    made = distilled(
        student, teacher, layers, example_input=dict(input_ids=ids[:1]), any_size=True
    )
    assert learns(made, student, ids[:, :5])


class Returns(nn.Module):
    """Tokens go in; a layer returns what is made of them, (N, L, C)."""

    def __init__(self, make, width):
        super().__init__()
        self.embed = nn.Embedding(30, width)
        self.made = Applies(make)
        self.head = nn.Linear(width, 5)

    def forward(self, input_ids):
        x = self.embed(input_ids)
        self.made(x)
        return self.head(x.mean(1))


class Applies(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


def of_tokens(make, shape, **layer):
    """A distillation of what is made of tokens (N, L)."""
    torch.manual_seed(0)
    models = Returns(make, 8), Returns(make, 12)
    example = torch.randint(30, shape)
    return distilled(*models, [dict(name='made', **layer)], example_input=example)


def first(x):
    return x.transpose(0, 1).contiguous()


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize(
    ('make', 'index'),
    [
        (lambda x: x, 0),
        (lambda x: x, -1),
        (lambda x: (x.sum(), x), (1, 0)),
        (lambda x: dict(all=x[:, None].expand(-1, 2, -1, -1)), ('all', 0, 1)),
    ],
)
def test_an_index_that_takes_one_sample_is_refused(make, index, batch):
    text = r'`index` -?\d of a tensor of shape .* is one sample of the batch. Leave it'
    with pytest.raises(ValueError, match=text):
        of_tokens(make, (batch, 7), index=index)


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize(
    ('make', 'index'),
    [(first, None), (lambda x: (first(x), x.sum()), 0), (lambda x: [first(x)], None)],
)
def test_sequences_whose_batch_stands_second_are_refused(make, index, batch):
    text = rf'batch of {batch} is the second dimension .*\(7, {batch}, 8\), as with bat'
    with pytest.raises(ValueError, match=text):
        of_tokens(make, (batch, 7), index=index)


@pytest.mark.parametrize(
    ('make', 'shape', 'layer', 'size'),
    [
        # Stacked layers, as many as samples among them.
        (lambda x: torch.stack([x, 2 * x]), (3, 7), dict(index=1, layout='NLC'), 7),
        (lambda x: torch.stack([x, 2 * x]), (2, 7), dict(index=1), 7),
        (lambda x: x[None], (1, 7), dict(index=0), 7),
        # The first of the positions, which stand before the samples.
        (first, (3, 7), dict(index=0), 1),
        (first, (3, 3), dict(index=0), 1),
        # As many samples as positions, and a single one of both.
        (lambda x: x, (5, 5), dict(), 5),
        (lambda x: x, (1, 1), dict(), 1),
        (lambda x: x, (1, 7), dict(), 7),
        # What a user says counts: chunks of as many positions as samples.
        (lambda x: x.reshape(-1, 2, x.shape[-1]), (2, 6), dict(layout='NLC'), 2),
    ],
)
def test_parts_and_layouts_that_are_meant_so(make, shape, layer, size):
    made = of_tokens(make, shape, **layer)
    assert [side.maps[0].size for side in made._sides] == [(1, size)] * 2


def test_inputs_that_do_not_tell_the_batch_refuse_nothing():
    """A list of images (C, H, W), and maps of three levels in one tensor."""

    class Stacks(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3, 2, 1)
            self.made = Applies(lambda x: torch.stack([x, x, x]))

        def forward(self, images):
            return self.made(self.conv(torch.stack(images)))[0].mean((2, 3))

    torch.manual_seed(0)
    layers = [dict(name='made', index=1)]
    example = ([torch.zeros(3, 16, 16)] * 2,)
    made = distilled(Stacks(4), Stacks(6), layers, example_input=example)
    assert shapes(made) == [(4, 8, 8)]


def test_the_one_map_of_an_image_may_be_named_by_its_place():
    layers = [dict(name='0', index=0)]
    student, teacher = pair()
    made = distilled(student, teacher, layers)
    student(images())
    assert made._sides[0].read()[0].shape == (4, 4, 8, 8)


@dataclass
class Out:
    feature: Tensor
    size: int = 1
    other: Optional[Tensor] = None


@pytest.mark.parametrize('index', [None, 'feature', ('feature',)])
@pytest.mark.parametrize('turn', [False, True])
def test_attributes_of_data_classes(index, turn):
    class Wraps(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3, 2, 1)
            self.out = Applies(lambda x: Out(x.permute(0, 2, 3, 1) if turn else x))

        def forward(self, x):
            return self.out(self.conv(x)).feature.mean((1, 2))

    torch.manual_seed(0)
    student = Wraps(4)
    made = distilled(student, Wraps(6), [dict(name='out', index=index)])
    assert shapes(made) == [(4, 8, 8)] and shapes(made, 1) == [(6, 8, 8)]
    assert "out['feature']" in repr(made)
    assert learns(made, student, images())


def test_several_attributes_of_a_data_class():
    def both(x):
        return Out(x, other=2 * x)

    text = r"an? Out with \['feature'\] \(1, 7, 8\), \['other'\].*Choose one"
    with pytest.raises(ValueError, match=text):
        of_tokens(both, (1, 7))
    with pytest.raises(ValueError, match="finds no part 'maps' in a Out with"):
        of_tokens(both, (1, 7), index='maps')
    assert shapes(of_tokens(both, (1, 7), index='other')) == [(8, 1, 7)]


def test_parts_under_numbers_are_told_by_their_keys():
    """Strides -> maps, of which one has its channels last."""

    class Strides(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3, 2, 1)
            self.neck = Applies(lambda x: {2: x, 4: x[:, :, ::2, ::2], 8: turned(x)})

        def forward(self, x):
            return self.neck(self.conv(x))[2].mean((2, 3))

    def turned(x):
        return x[:, :, ::4, ::4].permute(0, 2, 3, 1)

    torch.manual_seed(0)
    layers = [dict(name='neck', index=key) for key in (2, 4, 8)]
    made = distilled(Strides(4), Strides(6), layers)
    assert shapes(made) == [(4, 8, 8), (4, 4, 4), (4, 2, 2)]


def test_what_is_no_image_and_no_text_asks_for_its_layout():
    torch.manual_seed(0)
    student, teacher = nn.Conv1d(2, 4, 3), nn.Conv1d(2, 6, 3)
    example = torch.zeros(1, 2, 12)
    with pytest.raises(ValueError, match="cannot tell what the dimensions .*'NCL'"):
        distilled(student, teacher, [''], example_input=example)
    layers = [dict(name='', layout='NCL')]
    made = distilled(student, teacher, layers, example_input=example)
    assert shapes(made) == [(4, 1, 10)]
    assert learns(made, student, torch.rand(2, 2, 12))


def test_methods_of_models_can_be_called():
    torch.manual_seed(0)

    class WithFeatures(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.stem = nn.Conv2d(3, width, 3, 2, 1)

        def forward_features(self, x):
            return self.stem(x)

    student, teacher = WithFeatures(4), WithFeatures(6)
    made = distilled(
        student, teacher, ['stem'], forward=lambda model, x: model.forward_features(x)
    )
    student.forward_features(images(1))
    last = student.forward_features(images(2))
    with pytest.raises(
        RuntimeError, match=r'was not called as a whole.*loss\(images\)'
    ):
        made.loss()
    last = student.forward_features(images(2))
    made.loss(images(2)).backward()
    assert last.requires_grad and student.stem.weight.grad is not None


def test_passes_without_a_loss_are_let_go():
    """Of a model that is not called itself, layers run twice in a pass."""

    def run_twice(model, x):
        return model[1](model[1](model[0](x)))

    student, teacher = (
        nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.Conv2d(width, width, 1))
        for width in (4, 6)
    )
    layers = ['0', dict(name='1', call=1)]
    made = distilled(student, teacher, layers, forward=run_twice)
    features = []
    student[1].register_forward_hook(
        lambda module, args, output: features.append(ref(output))
    )
    for _ in range(5):
        run_twice(student, images(2))
    assert [feature() is not None for feature in features] == [False] * 8 + [True] * 2
    made.loss(images(2)).backward()
    assert student[0].weight.grad is not None


def test_pairs_modules_and_one_layer():
    student, teacher = pair()
    by_name = distilled(student, teacher, ['0', '1'])
    for layers, theirs in (
        ([student[0], student[1]], [teacher[0], teacher[1]]),
        ({'0': '0', '1': '1'}, None),
    ):
        torch.manual_seed(2)
        other = mmfakd.distill(
            student, teacher, layers, theirs, torch.zeros(1, 3, 16, 16)
        )
        assert shapes(other) == shapes(by_name) and shapes(other, 1) == shapes(
            by_name, 1
        )
    assert shapes(mmfakd.distill(student, teacher, '0', '0', images())) == [(4, 8, 8)]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(method='fakd'), "expected one of 'fakd-review'"),
        (
            dict(example_input=None),
            'example_input: expected what the models are called',
        ),
        (dict(teacher_layers=['0']), '2 of the student stand against 1'),
        (dict(student_layers=['1', '0']), 'run deep to shallow'),
        (dict(student_layers=[]), 'at least one'),
        (dict(method='kd'), 'compares predictions alone'),
        (dict(teacher_layers=images()), 'got a Tensor; expected lists of names'),
        (
            dict(student_layers={'0': '0'}, teacher_layers=['0']),
            'expected one of the two',
        ),
        (dict(loss_weight=-1.0), 'none below 0'),
        (dict(kd_weight=-1.0), 'kd_weight=-1.0'),
        (dict(tau=0.0), 'tau=0.0'),
        (dict(tau=4), 'tau=4 has no effect .*kd_weight=0.* Give a `kd_weight`'),
        (
            dict(method='kd', kd_weight=0.5),
            "kd_weight=0.5 has no effect with method='kd'.*`loss_weight`",
        ),
        (
            dict(method='kd', connector={}, level_loss=nn.MSELoss()),
            r'connector=\{\}, level_loss=MSELoss\(\) has no effect',
        ),
        (dict(warmup=dict(by_epoch=True)), 'expected a number of calls'),
        (dict(warmup=0), 'end > begin'),
        (dict(level_loss='mse'), r'such as torch.nn.MSELoss\(\)'),
    ],
)
def test_arguments(change, message):
    student, teacher = pair()
    given = dict(student_layers=['0', '1'], teacher_layers=None, example_input=images())
    with pytest.raises(ValueError, match=message):
        mmfakd.distill(student, teacher, **{**given, **change})


def test_models_that_hooks_do_not_run_in():
    student, teacher = pair()
    with pytest.raises(TypeError, match='expected a torch.nn.Module'):
        distilled(student, 'resnet34')
    with pytest.raises(TypeError, match='DataParallel'):
        distilled(nn.DataParallel(student), teacher)
    with pytest.raises(TypeError, match='TorchScript'):
        distilled(torch.jit.trace(student.eval(), images()), teacher)


def test_connectors_are_those_of_shipped_configs():
    widths, sizes = [64, 128, 256, 512, 512], [56, 28, 14, 7, 1]
    maps = [MapInfo(Layer(''), c, (n, n), True) for c, n in zip(widths, sizes)]
    for name in ('fakd-review', 'reviewkd'):
        path = f'{name.replace("-", "_")}_r34_r18_8xb32_in1k.py'
        cfg = Config.fromfile(CONFIGS / 'imagenet' / path).model.distiller.connector
        ours = Method(name)._connector(maps, maps)
        assert ours.pop('sizes') == [(n, n) for n in cfg.pop('sizes')]
        if name == 'fakd-review':
            # What these stand for when they are left out.
            assert ours.pop('mid_channels') == widths
            default = dict(type='mmfakd.FrequencyAttention')
            assert ours.pop('transform') == [default] * len(maps)
        assert ours == cfg
    kind = 'mmfakd.FrequencyAttentionConnector'
    # Where the teacher has negative values, predictions do, too; odd channels are made
    # even, and filters that are too large are cut into groups.
    odd = [MapInfo(Layer(''), 9, (8, 8), True), MapInfo(Layer(''), 1024, (8, 8), False)]
    ours = Method('fakd-review')._connector(odd, odd)
    assert ours['act_cfg'] is None and ours['mid_channels'] == [10, 1024]
    assert ours['transform'][1]['groups'] == 4
    ours = Method('fakd-layer')._connector(odd, odd)['connector']
    assert [level.get('groups') for level in ours] == [None, 4]
    # Of any size: fewer frequencies before groups.
    wide = [MapInfo(Layer(''), 256, (25, 42), False)]
    ours = Method('fakd-layer', any_size=True)._connector(wide, wide)['connector']
    assert ours == [dict(type=kind, modes=4, high_pass=0)]


def test_arguments_of_the_connector_can_be_others():
    own = dict(norm_cfg=None, mid_channels=8)
    made = distilled(*pair(), method='fakd-review', connector=own)
    levels = made.distiller.connectors['review'].levels
    assert all(isinstance(level.norm, nn.Identity) for level in levels)
    assert [level.transform.in_channels for level in levels] == [8, 8]
