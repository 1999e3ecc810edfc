# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights that fit are loaded, weights that do not are an error that says why."""

from collections import OrderedDict

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmfakd.checkpoints.load import load_weights


class Net(nn.Module):
    """Backbone with a norm layer, neck and head."""

    def __init__(self, channels=4, classes=10):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels)
        )
        self.neck = nn.Conv2d(channels, channels, 1)
        self.head = nn.Linear(channels, classes)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'weights.pth')


def filled(net):
    """A state dict in which every value differs from a fresh one's."""
    state_dict = net.state_dict()
    for value in state_dict.values():
        value.add_(7)
    return state_dict


def assert_same(net, state_dict):
    torch.testing.assert_close(dict(net.state_dict()), dict(state_dict))


@pytest.mark.parametrize(
    'wrap', [dict, lambda s: {'state_dict': s}, lambda s: {'model': s, 'epoch': 240}]
)
def test_plain_mmengine_and_mdistiller_files(wrap, path):
    state_dict = filled(Net())
    torch.save(wrap(state_dict), path)
    net = Net()
    load_weights(net, path, 'teacher')
    assert_same(net, state_dict)


def test_student_of_a_distillation_checkpoint(path):
    state_dict = filled(Net())
    checkpoint = OrderedDict(
        (f'architecture.{key}', value) for key, value in state_dict.items()
    )
    checkpoint['distiller.connectors.review.weight'] = torch.zeros(1)
    torch.save(dict(state_dict=checkpoint), path)
    net = Net()
    load_weights(net, path, 'student')
    assert_same(net, state_dict)


@pytest.mark.parametrize(
    ('role', 'source', 'told'),
    [
        ('teacher', 'gone.pth', 'Check the path. `--teacher-ckpt` takes another one.'),
        (
            'student',
            'a/gone.pth',
            'Check the path. `--student-ckpt` takes another one.',
        ),
        ('model', 'gone.pth', 'Check the path.'),
        (
            'teacher',
            'work_dirs/r18w32_1xb50_digits/epoch_30.pth',
            'one. `mmfakd train r18w32_1xb50_digits` makes it; the name '
            "'r18w32_1xb50_digits' in its place takes published weights.",
        ),
        (
            'teacher',
            'work_dirs/r101_1xb64_cifar100/epoch_240.pth',
            'takes another one.',
        ),
        (
            'teacher',
            'work_dirs/r110_1xb64_cifar100/epoch_240.pth',
            'one. `mmfakd train r110_1xb64_cifar100` makes it.',
        ),
    ],
)
def test_file_that_is_not_there(role, source, told):
    """It is said whose it is, and how to come by it."""
    option = '' if role == 'model' else f'--{role}-ckpt'
    with pytest.raises(FileNotFoundError) as error:
        load_weights(Net(), source, role, option=option)
    text = str(error.value)
    assert text.startswith(f'{role} checkpoint: {source!r} is neither a file')
    assert text.endswith(told)


class Distillation(nn.Module):
    """What a distillation's names look like."""

    def __init__(self, student):
        super().__init__()
        self.architecture = student
        self.connector = nn.Linear(2, 2)


def test_student_of_two_distillations_at_once(path):
    whole = Distillation(Distillation(Net()))
    state_dict = filled(whole)
    torch.save(dict(state_dict=state_dict), path)
    # A student that is a distillation itself keeps what is its own.
    for model, source in (
        (Net(), whole.architecture.architecture),
        (Distillation(Net()), whole.architecture),
    ):
        load_weights(model, path, 'teacher')
        assert_same(model, source.state_dict())


def test_no_key_matches(path):
    state_dict = {f'net.{key}': value for key, value in Net().state_dict().items()}
    torch.save(state_dict, path)
    with pytest.raises(ValueError) as error:
        load_weights(Net(), path, 'teacher', None)
    message = str(error.value)
    assert message.startswith(f'teacher checkpoint {path!r}: none of its 11 keys')
    # What the file has, and what was expected.
    assert 'It has net.backbone.0.weight, ' in message
    assert 'expected backbone.0.weight, ' in message
    assert 'mmfakd convert' in message


def test_only_counters_match(path):
    torch.save({'backbone.1.num_batches_tracked': torch.tensor(3)}, path)
    with pytest.raises(ValueError, match='none of its 1 keys'):
        load_weights(Net(), path, 'teacher', None)


def test_head_of_another_size(path):
    torch.save(Net(classes=100).state_dict(), path)
    with pytest.raises(ValueError) as error:
        load_weights(Net(), path, 'teacher', ('backbone.',))
    message = str(error.value)
    assert '2 tensors do not fit the Net' in message
    for part in ('head.weight', '[100, 4]', '[10, 4]', 'head.bias', '[100]', '[10]'):
        assert part in message
    assert 'number of classes' in message and 'load_from' not in message
    with pytest.raises(ValueError, match='what fits, .* give the file as `load_from`'):
        load_weights(Net(), path, 'student', None, '--student-ckpt')


def test_missing_keys_are_an_error_where_required(path):
    torch.save(Net().backbone.state_dict(prefix='backbone.'), path)
    with pytest.raises(ValueError) as error:
        load_weights(Net(), path, 'teacher')
    assert 'neck.weight, neck.bias, head.weight, head.bias' in str(error.value)
    with pytest.raises(ValueError, match=r'2 tensors .*: neck\.weight, neck\.bias\. '):
        load_weights(Net(), path, 'teacher', ('backbone.', 'neck.'))


@pytest.mark.parametrize('required', [('backbone.',), None])
def test_missing_keys_are_logged_where_not_required(required, path, logged):
    backbone = filled(Net().backbone)
    torch.save({f'backbone.{key}': value for key, value in backbone.items()}, path)
    net = Net()
    load_weights(net, path, 'teacher', required)
    assert_same(net.backbone, backbone)
    assert '4 missing: neck.weight, neck.bias, head.weight, head.bias.' in logged[-1]


def test_surplus_keys_are_logged(path, logged):
    torch.save({**Net().state_dict(), 'optimizer_step': torch.tensor(1)}, path)
    load_weights(Net(), path, 'teacher')
    assert '1 ignored: optimizer_step.' in logged[-1]


class Deep(Net):
    """Stages of blocks, and a neck that may have more branches."""

    def __init__(self, blocks=2, stages=2, branches=1):
        super().__init__()
        stage = (
            nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(blocks)])
            for _ in range(stages)
        )
        self.backbone = nn.Module()
        self.backbone.layers = nn.ModuleList(stage)
        self.neck = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(branches))


@pytest.mark.parametrize('required', [('',), ('backbone.',)])
@pytest.mark.parametrize(
    ('sizes', 'has', 'ends'),
    [
        (dict(blocks=4), 'backbone.layers.0.2', 'backbone.layers.0.1'),
        (dict(stages=3), 'backbone.layers.2', 'backbone.layers.1'),
    ],
    ids=['blocks', 'stages'],
)
def test_backbone_of_a_deeper_network(sizes, has, ends, required, path):
    """It fills the shallower one wholly, which then yields nothing of use."""
    torch.save(Deep(**sizes).state_dict(), path)
    message = f'checkpoint has {has}, the Deep ends at {ends}: .*deeper.*Set the depth'
    with pytest.raises(ValueError, match=message):
        load_weights(Deep(), path, 'teacher', required)


@pytest.mark.parametrize(
    ('sizes', 'required', 'part'),
    [
        (dict(branches=3), ('',), 'neck.1'),
        (dict(branches=3), ('backbone.',), 'neck.1'),
        (dict(blocks=4), None, 'backbone.layers.0.2'),
    ],
)
def test_what_is_cut_elsewhere_is_warned_of(sizes, required, part, path, warned):
    deep = Deep(**sizes)
    torch.save(filled(deep), path)
    net = Deep()
    load_weights(net, path, 'student', required)
    assert_same(net, {key: deep.state_dict()[key] for key in net.state_dict()})
    [text] = warned
    assert f'has {part}, the Deep ends at' in text


def hrnet(**kwargs):
    extra = {
        f'stage{i}': dict(
            num_modules=1,
            num_branches=i,
            block='BOTTLENECK' if i == 1 else 'BASIC',
            num_blocks=(1,) * i,
            num_channels=(4,) * i,
        )
        for i in range(1, 5)
    }
    return dict(type='mmpretrain.HRNet', extra=extra, **kwargs)


def efficientnet(*out_indices):
    return dict(type='mmdet.EfficientNet', arch='b0', out_indices=out_indices)


def with_backbone(backbone):
    net = nn.Module()
    net.backbone = MODELS.build(backbone)
    return net


@pytest.mark.parametrize(
    ('has', 'into', 'part'),
    [
        (hrnet(), hrnet(multiscale_output=False), 'stage4.0.fuse_layers.1'),
        (efficientnet(6), efficientnet(3, 4, 5), 'layers.6'),
    ],
    ids=['branches', 'outputs'],
)
def test_networks_as_deep_are_warned_of(has, into, part, path, warned):
    """What the file has more is nothing that the model would yield."""
    pytest.importorskip('mmdet.models')
    torch.save(with_backbone(has).state_dict(), path)
    load_weights(with_backbone(into), path, 'teacher', ('backbone.',))
    [text] = warned
    assert f'the checkpoint has backbone.{part}, the Module ends at' in text
    if part == 'layers.6':
        # A head behind a backbone without its last layer is given another input.
        with pytest.raises(ValueError, match=r'has backbone\.layers\.6, .*deeper'):
            load_weights(with_backbone(into), path, 'teacher', ('',))


class OwnEfficientNet(nn.Module):
    """One of a user's, of the same name as mmdet's, that builds all of its depth."""

    out_indices = (1,)

    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(depth))


OwnEfficientNet.__name__ = 'EfficientNet'


def own_efficientnet(depth):
    return dict(type=OwnEfficientNet, depth=depth)


def vit(num_layers, **kwargs):
    arch = dict(embed_dims=8, num_heads=2, feedforward_channels=8)
    arch['num_layers'] = num_layers
    kind = 'mmpretrain.VisionTransformer'
    return dict(type=kind, arch=arch, img_size=32, patch_size=16, **kwargs)


def xcit(depth, cls_attn_layers=1):
    arch = dict(embed_dims=8, num_heads=2, mlp_ratio=1, depth=depth)
    arch['cls_attn_layers'] = cls_attn_layers
    return dict(type='mmpretrain.XCiT', patch_size=16, **arch)


def mixer(num_layers):
    arch = dict(embed_dims=8, tokens_mlp_dims=8, channels_mlp_dims=8)
    arch['num_layers'] = num_layers
    return dict(type='mmpretrain.MlpMixer', arch=arch, img_size=32, patch_size=16)


@pytest.mark.parametrize('required', [('',), ('backbone.',)])
@pytest.mark.parametrize(
    ('has', 'into', 'part'),
    [
        (vit(4), vit(2), 'layers.2'),
        (vit(4, out_indices=3), vit(3, out_indices=[0]), 'layers.3'),
        (mixer(3), mixer(2), 'layers.2'),
        (xcit(4), xcit(2), 'xca_layers.2'),
        (xcit(2, 2), xcit(2, 1), 'ca_layers.1'),
        (own_efficientnet(3), own_efficientnet(2), 'layers.2'),
    ],
    ids=['ViT', 'one output', 'MlpMixer', 'XCiT', 'class attention', 'own'],
)
def test_deeper_transformers(has, into, part, required, path):
    """They have all of their depth, of which by default the last is yielded."""
    torch.save(with_backbone(has).state_dict(), path)
    with pytest.raises(ValueError, match=rf'has backbone\.{part}, .*deeper'):
        load_weights(with_backbone(into), path, 'teacher', required)


@pytest.mark.parametrize('name', ['layer1', 'features', 'stage_2', 'blocks'])
def test_lists_that_run_in_turn(name, path):
    def build(blocks):
        net = nn.Module()
        net.backbone = nn.Module()
        net.backbone.out_indices = None
        net.backbone.add_module(name, nn.Sequential(*map(nn.BatchNorm1d, blocks)))
        return net

    torch.save(build((4, 4, 4)).state_dict(), path)
    with pytest.raises(ValueError, match=rf'has backbone\.{name}\.2, .*deeper'):
        load_weights(build((4, 4)), path, 'teacher', ('backbone.',))


def test_other_surplus_is_no_deeper_network(path, warned):
    """Auxiliary heads, tensors of older versions and what was cut out of a file."""
    surplus = ('auxiliary.0.weight', 'backbone.layer3.0.weight', 'backbone.mask')
    surplus += ('backbone.layers.0.0.scale', 'head.0.weight')
    more = {key: torch.zeros(1) for key in surplus}
    torch.save({**Deep().state_dict(), **more}, path)
    load_weights(Deep(), path, 'teacher')
    deep = Deep(blocks=3).state_dict()
    cut = {key: value for key, value in deep.items() if '.2.' not in key}
    torch.save(cut, path)
    load_weights(Deep(), path, 'teacher')
    assert not warned


def test_long_lists_are_cut(path):
    torch.save({f'key{i}': torch.zeros(1) for i in range(50)}, path)
    with pytest.raises(ValueError, match=r'key5, \.\.\. and 44 more; expected'):
        load_weights(Net(), path, 'teacher')


@pytest.mark.parametrize('versions', [True, False])
def test_counters_of_norm_layers_may_be_missing(versions, path):
    state_dict = filled(Net())
    kept = state_dict if versions else OrderedDict(state_dict)
    counter = kept.pop('backbone.1.num_batches_tracked')
    torch.save(dict(state_dict=kept), path)
    net = Net()
    load_weights(net, path, 'teacher')
    torch.testing.assert_close(
        net.backbone[1].running_var, kept['backbone.1.running_var']
    )
    assert net.backbone[1].num_batches_tracked == 0 != counter


def test_file_without_weights(path):
    torch.save(dict(meta=dict(), epoch=3), path)
    with pytest.raises(ValueError, match='holds no weights.*meta, epoch'):
        load_weights(Net(), path, 'teacher')


class Versioned(nn.Linear):
    """A layer that renames the keys of its first version."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, metadata, *args):
        if metadata.get('version') != 2:
            state_dict[f'{prefix}weight'] = state_dict.pop(f'{prefix}kernel')
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)


@pytest.mark.parametrize('prefix', ['', 'architecture.'])
def test_layout_versions_of_modules_are_respected(prefix, path):
    source = nn.Module()
    parent = source
    if prefix:
        parent = source.architecture = nn.Module()
    parent.layer = Versioned(2, 3)
    torch.save(dict(state_dict=source.state_dict()), path)
    net = nn.Module()
    net.layer = Versioned(2, 3)
    load_weights(net, path, 'teacher')
    assert_same(net.layer, parent.layer.state_dict())
    # Without versions it takes the file for an old one.
    old = {'layer.kernel': torch.ones(3, 2), 'layer.bias': torch.ones(3)}
    torch.save(old, path)
    load_weights(net, path, 'teacher')
    assert net.layer.weight.eq(1).all()


def test_position_embeddings_are_resized_as_the_model_does(path):
    """A transformer that was trained at another resolution."""
    config = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=8),
        patch_size=4,
    )
    small = MODELS.build(dict(config, img_size=16))
    large = MODELS.build(dict(config, img_size=32))
    torch.save(small.state_dict(), path)
    load_weights(large, path, 'teacher')
    assert large.pos_embed.shape == (1, 1 + 8 * 8, 8)
    expected = small.resize_pos_embed(small.pos_embed, (4, 4), (8, 8))
    torch.testing.assert_close(large.pos_embed, expected)
    torch.testing.assert_close(large.cls_token, small.cls_token)


def test_tensors_that_a_model_refuses_are_not_missing(path):
    """mmpretrain's SwinV2 drops its position tables from what it loads."""

    class Refusing(Net):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict.pop('neck.weight')
            super()._load_from_state_dict(state_dict, prefix, *args)

    state_dict = filled(Net())
    torch.save(state_dict, path)
    net = Refusing()
    own = net.neck.weight.clone()
    load_weights(net, path, 'teacher')
    assert_same(net, {**state_dict, 'neck.weight': own})
