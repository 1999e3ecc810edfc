# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from mmrazor.models.distillers import ConfigurableDistiller

from mmfakd.models.distillers import TokenMap
from mmfakd.models.distillers.level import Level, parse_levels, to_feature
from tests.helpers.token_models import ARCH

GRID = (2, 3)
TOKENS = torch.arange(48.0).reshape(2, 6, 4)
MAP = TOKENS.transpose(1, 2).reshape(2, 4, *GRID)
CLASSED = torch.cat([torch.full((2, 1, 4), -1.0), TOKENS], 1)
VECTOR = torch.randn(2, 4)
# As mmdet's Swin stages return it: behind and before the downsampling.
STAGE = (torch.zeros(2, 1, 8), (1, 1), TOKENS, GRID)
SMALL, BIG = (16, 24), (64, 96)


def vit(kind='VisionTransformer', **kwargs):
    """Config of a ViT of two blocks that makes maps itself, GRID on SMALL images."""
    cfg = dict(type=kind, arch=ARCH, img_size=SMALL, patch_size=8)
    return dict(cfg, **{'out_type': 'featmap', **kwargs})


def inputs(source, **kwargs):
    """Level of what enters a module."""
    return dict(recorder=dict(type='mmrazor.ModuleInputs', source=source), **kwargs)


def tokens(recorder, **kwargs):
    """Level of tokens over GRID."""
    return dict(recorder=recorder, tokens=dict(size=GRID, **kwargs))


def build(cfg, scope='mmpretrain'):
    backbone = MODELS.build(dict(cfg, _scope_=scope))
    backbone.eval()
    return backbone


def recorded(backbone, level, size):
    """Feature of a level of a backbone, and what the backbone returns."""
    recorders = {}
    [parsed] = parse_levels([level], recorders, 'student')
    distiller = ConfigurableDistiller(student_recorders=recorders)
    distiller.prepare_from_student(backbone)
    with torch.no_grad(), distiller.student_recorders:
        outputs = backbone(torch.randn(2, 3, *size))
    return parsed.read(distiller), outputs


def normed(backbone, feature, name='norm3'):
    """A map, its channels normed by a layer of the backbone."""
    norm = getattr(backbone, name)
    return norm(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


SWIN = dict(arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4), window_size=2)
SWIN2 = dict(SWIN, arch=dict(SWIN['arch'], extra_norm_every_n_blocks=0))
MVIT = dict(embed_dims=8, num_layers=4, num_heads=1, downscale_indices=[1, 2, 3])
MIXER = dict(embed_dims=16, num_layers=2, tokens_mlp_dims=8, channels_mlp_dims=8)
HEADS = dict(num_heads=2, feedforward_channels=32)
T2T = dict(embed_dims=16, num_layers=2, t2t_cfg=dict(token_dims=8), layer_cfgs=HEADS)
XCIT = dict(patch_size=8, embed_dims=16, depth=2, num_heads=2)
TWINS = dict(
    embed_dims=[8] * 4,
    depths=[1] * 4,
    num_heads=[1] * 4,
    mlp_ratios=[1] * 4,
    patch_sizes=[4, 2, 2, 2],
    strides=[4, 2, 2, 2],
    sr_ratios=[8, 4, 2, 1],
)


# Each model reshapes its own tokens, and so tells what the map of a record must be.
@pytest.mark.parametrize(
    ('cfg', 'size', 'level', 'finish'),
    [
        # Class, distillation and register tokens before the patches.
        (vit(), SMALL, tokens('ln1', prefix=1), None),
        (vit(), (24, 24), dict(recorder='ln1', tokens=dict(prefix=1)), None),
        (vit(with_cls_token=False), SMALL, tokens('ln1'), None),
        (vit('DistilledVisionTransformer'), SMALL, tokens('ln1', prefix=2), None),
        (vit('RegisterViT', registers=4), SMALL, tokens('ln1', prefix=5), None),
        (vit('DeiT3'), SMALL, tokens('ln1', prefix=1), None),
        (vit('BEiTViT'), SMALL, tokens('layers.1', prefix=1), None),
        (
            dict(type='T2T_ViT', out_type='featmap', **T2T),
            (32, 48),
            tokens('norm', prefix=1),
            None,
        ),
        (
            dict(type='XCiT', out_type='featmap', **XCIT),
            SMALL,
            tokens('norm', prefix=1),
            None,
        ),
        (dict(type='VAN', arch='tiny'), BIG, tokens('norm4'), None),
        # Blocks that are handed their grid: it is in their inputs.
        (
            vit('ViTEVA02', out_indices=[0], final_norm=False),
            SMALL,
            inputs('layers.1', tokens=dict(prefix=1)),
            None,
        ),
        (
            dict(type='XCiT', out_type='featmap', out_indices=[0], **XCIT),
            SMALL,
            inputs('xca_layers.1'),
            None,
        ),
        (dict(type='PCPVT', arch=TWINS), BIG, tokens('norm_after_stage3'), None),
        # Stages and blocks that return it.
        (dict(type='SwinTransformer', **SWIN), BIG, 'stages.3', normed),
        (
            dict(type='SwinTransformer', out_indices=(1,), **SWIN),
            BIG,
            'stages.1',
            partial(normed, name='norm1'),
        ),
        (dict(type='SwinTransformerV2', **SWIN2), BIG, 'stages.3', normed),
        (dict(type='DaViT', **SWIN), BIG, 'stages.3', normed),
        (dict(type='MViT', arch=MVIT, img_size=64), (64, 64), 'blocks.3', normed),
        # Channels last.
        (
            vit('ViTSAM', arch=dict(ARCH, global_attn_indexes=[]), out_channels=16),
            SMALL,
            dict(recorder='layers.1', tokens=dict(channels_last=True)),
            lambda backbone, feature: backbone.channel_reduction(feature),
        ),
        # Its backbone returns (N, C, L).
        (
            dict(type='MlpMixer', arch=MIXER, img_size=16, patch_size=8),
            (16, 16),
            dict(recorder='ln1', tokens={}),
            lambda _, feature: feature.flatten(2),
        ),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else None,
)
def test_maps_of_real_models(cfg, size, level, finish):
    backbone = build(cfg)
    feature, (expected,) = recorded(backbone, level, size)
    assert feature.dim() == 4 and feature.shape[2] * feature.shape[3] > 1
    finished = feature if finish is None else finish(backbone, feature)
    assert torch.equal(finished, expected)


@pytest.mark.parametrize(
    ('cfg', 'level', 'out'),
    [
        (
            dict(
                type='SwinTransformer',
                embed_dims=8,
                depths=(1,) * 4,
                num_heads=(1,) * 4,
                window_size=2,
            ),
            dict(recorder='stages.1', data_idx=2),
            1,
        ),
        (
            dict(
                type='PyramidVisionTransformer',
                embed_dims=8,
                num_layers=[1] * 4,
                num_heads=[1] * 4,
                mlp_ratios=[1] * 4,
                pretrain_img_size=BIG,
            ),
            dict(recorder='layers.2.2', tokens=dict(size=(4, 6))),
            2,
        ),
        (
            dict(
                type='PyramidVisionTransformerV2',
                embed_dims=8,
                num_layers=[1] * 4,
                num_heads=[1] * 4,
                mlp_ratios=[1] * 4,
            ),
            dict(recorder='', data_idx=2),
            2,
        ),
    ],
    ids=['Swin', 'PVT', 'PVTv2'],
)
def test_maps_of_detectors(cfg, level, out):
    """Where the images have any size, the backbone's own maps are the levels."""
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    backbone = build(cfg, 'mmdet')
    feature, outputs = recorded(backbone, level, BIG)
    if cfg['type'] == 'SwinTransformer':
        feature = normed(backbone, feature, 'norm1')
    assert torch.equal(feature, outputs[out])


@pytest.mark.parametrize(
    ('kind', 'out_type', 'level', 'pick'),
    [
        ('VisionTransformer', 'cls_token', dict(recorder='', data_idx=0), (0,)),
        ('VisionTransformer', 'avg_featmap', dict(recorder='', data_idx=-1), (0,)),
        ('RegisterViT', 'cls_token', dict(recorder='', data_idx=0), (0,)),
        # DeiT returns class and distillation token as one part.
        (
            'DistilledVisionTransformer',
            'cls_token',
            dict(recorder='', data_idx=(0, 1)),
            (0, 1),
        ),
    ],
)
def test_class_token_as_the_backbone_returns_it(kind, out_type, level, pick):
    feature, expected = recorded(build(vit(kind, out_type=out_type)), level, SMALL)
    for index in pick:
        expected = expected[index]
    assert feature.shape == (2, 16) and torch.equal(feature, expected)


@pytest.mark.parametrize(
    ('record', 'data_idx', 'tokens', 'expected'),
    [
        (MAP, None, None, MAP),
        (VECTOR, None, None, VECTOR),
        (TOKENS, None, dict(size=GRID), MAP),
        # A record that holds the grid.
        ((TOKENS, GRID), None, None, MAP),
        ((TOKENS, torch.Size(GRID)), None, None, MAP),
        ([TOKENS, list(GRID)], None, None, MAP),
        ((TOKENS, *GRID), None, None, MAP),
        ((CLASSED, GRID), None, dict(prefix=1), MAP),
        ((MAP, GRID), None, None, MAP),
        # One part of several, with the grid behind it.
        ((TOKENS, GRID), 0, None, MAP),
        (STAGE, 2, None, MAP),
        (STAGE, -2, None, MAP),
        ((MAP, CLASSED), 1, dict(prefix=1, size=GRID), MAP),
        ((VECTOR, (MAP, VECTOR)), (1, 0), None, MAP),
        (([TOKENS, GRID],), 0, None, MAP),
        # Necks.
        ((MAP, VECTOR), None, None, (MAP, VECTOR)),
        ([MAP], None, None, (MAP,)),
        (((TOKENS, GRID), (TOKENS, *GRID)), None, None, (MAP, MAP)),
        ((CLASSED, CLASSED), None, dict(prefix=1, size=GRID), (MAP, MAP)),
    ],
)
def test_features_of_records(record, data_idx, tokens, expected):
    tokens = None if tokens is None else TokenMap(tokens)
    feature = to_feature(record, data_idx, tokens)
    assert type(feature) is type(expected)
    single = isinstance(expected, torch.Tensor)
    pairs = [(feature, expected)] if single else zip(feature, expected)
    assert single or len(feature) == len(expected)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ('record', 'data_idx', 'tokens', 'message'),
    [
        (
            torch.zeros(2, 50, 4),
            None,
            None,
            r'tokens of shape \(2, 50, 4\), \(N, L, C\); give the level `tokens`.*'
            r'tokens=dict\(prefix=0, .*size=\(h, w\).*50 = 1 \+ 7 x 7',
        ),
        ((CLASSED, GRID), None, None, r'7 patches .*recorded grid 2 x 3 holds 6'),
        ((CLASSED,), None, None, r'tokens of shape \(2, 7, 4\)'),
        (TOKENS, None, dict(prefix=1), r'5 patches .*no square'),
        (MAP, None, dict(prefix=1), r'\(2, 4, 2, 3\).*need no `tokens`'),
        (VECTOR, None, {}, r'\(2, 4\).*need no `tokens`'),
        (
            STAGE,
            None,
            None,
            r'recorded a tuple of 4 \(a tensor of shape \(2, 1, 8\), a tuple, a tensor '
            r'of shape \(2, 6, 4\), a tuple\).*`data_idx`',
        ),
        ((VECTOR, (MAP, VECTOR)), None, None, r'tuple of 2 .*data_idx=\(0, 1\)'),
        (dict(out=MAP), None, None, 'recorded a dict; expected a tensor'),
        ((MAP, dict(out=MAP)), 1, None, 'recorded a dict'),
        ((MAP, None), None, None, 'a NoneType'),
        ((MAP, VECTOR), 2, None, 'data_idx=2 finds no part 2 in a tuple of 2'),
        (MAP, 0, None, r'data_idx=0 finds no part 0 in a tensor of shape'),
        ((MAP, VECTOR), (1, 0), None, r'data_idx=\(1, 0\) finds no part 0 in a tensor'),
    ],
)
def test_records_that_are_no_feature(record, data_idx, tokens, message):
    tokens = None if tokens is None else TokenMap(tokens)
    with pytest.raises(ValueError, match=message):
        to_feature(record, data_idx, tokens)


def test_recorders_are_made_and_shared():
    recorders = dict(mine=dict(type='mmrazor.ModuleInputs', source='neck'))
    levels = [
        'backbone',
        dict(recorder='backbone', data_idx=1),
        dict(recorder='mine', record_idx=1),
        inputs('neck', tokens=dict(prefix=1)),
    ]
    parsed = parse_levels(levels, recorders, 'student')
    assert recorders == {
        'mine': dict(type='mmrazor.ModuleInputs', source='neck'),
        'backbone': dict(type='mmrazor.ModuleOutputs', source='backbone'),
        'mmrazor.ModuleInputs of neck': dict(
            type='mmrazor.ModuleInputs', source='neck'
        ),
    }
    tokens = parsed[3].tokens
    assert isinstance(tokens, TokenMap) and tokens.prefix == 1
    assert parsed == [
        Level('backbone', from_student=True),
        Level('backbone', from_student=True, data_idx=1),
        Level('mine', from_student=True, record_idx=1),
        Level('mmrazor.ModuleInputs of neck', from_student=True, tokens=tokens),
    ]
    assert levels[3]['tokens'] == dict(prefix=1)


@pytest.mark.parametrize(
    ('level', 'message'),
    [
        (3, 'student_levels: got 3; expected a module name'),
        (dict(source='x'), 'student_levels: got .* expected a module name'),
        (dict(recorder=3), 'student_levels: got .* expected a module name'),
        (dict(recorder='x', idx=1), r"\['idx'\] .* `record_idx`, `data_idx`, `tokens`"),
        (dict(recorder='x', data_idx='0'), "student_levels, 'x': .* data_idx='0'"),
        (dict(recorder='x', data_idx=(0, None)), r"'x': .*data_idx=\(0, None\)"),
        (dict(recorder='x', record_idx='1'), "'x': record_idx='1'"),
        (dict(recorder='x', tokens=1), "'x': tokens: got 1"),
        (dict(recorder='x', tokens=dict(prefix='1')), "'x': tokens: got {'prefix'"),
    ],
)
def test_bad_levels(level, message):
    with pytest.raises(ValueError, match=message):
        parse_levels([level], {}, 'student')


def test_errors_name_the_level():
    backbone = build(vit())
    with pytest.raises(ValueError, match=r"student level 'layers.1': recorded tokens"):
        recorded(backbone, 'layers.1', SMALL)
    level = dict(recorder='layers.0', record_idx=1)
    with pytest.raises(
        ValueError, match=r"student level 'layers.0': record_idx=1, .* made 1 record"
    ):
        recorded(backbone, level, SMALL)
