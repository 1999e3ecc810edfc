# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The rules by which levels are chosen and matched, and filters are planned."""

from functools import cache

import pytest
from mmengine.config import Config

from mmfakd.models.layers import FrequencyAttention
from mmfakd.ops.filter_groups import MOST_MODE_WEIGHTS
from mmfakd.pairing.candidate import Candidate
from mmfakd.pairing.check_trainable import check_trainable
from mmfakd.pairing.features import Feature, find_features
from mmfakd.pairing.filters import MOST_DENSE_WEIGHTS, plan_dense, plan_modes
from mmfakd.pairing.input_size import (
    choose_probe_size,
    detector_size,
    read_input_size,
)
from mmfakd.pairing.levels import (
    Levels,
    choose_classifier_levels,
    choose_detector_levels,
    find_logits,
)
from mmfakd.pairing.match_segmentors import match_head_inputs
from mmfakd.pairing.matching import match_levels, take_evenly
from mmfakd.pairing.probe import Call, TensorInfo, probe_features


@cache
def probe_of(name, size):
    return probe_features(Candidate(name).model, size)


@cache
def levels_of(name, size=224):
    return choose_classifier_levels(probe_of(name, (size, size)))


def shown(feature):
    return feature.name, feature.channels, feature.size[0], feature.tokens


class TestClassifiers:
    """Stages as the papers and the libraries know them, of stock models."""

    @pytest.mark.parametrize(
        ('name', 'size', 'stages', 'pooled'),
        [
            (
                'resnet18_8xb32_in1k',
                64,
                [(f'layer{i}', 2 ** (i + 5), 32 // 2**i, None) for i in (1, 2, 3, 4)],
                ('neck.gap', 512, 1, None),
            ),
            (
                # A 32 x 32 image leaves one position to the last stage.
                'resnet18_8xb32_in1k',
                32,
                [(f'layer{i}', 2 ** (i + 5), 16 // 2**i, None) for i in (1, 2, 3, 4)],
                ('neck.gap', 512, 1, None),
            ),
            (
                'mobilenet-v2_8xb32_in1k',
                64,
                [
                    ('layer2', 24, 16, None),
                    ('layer3', 32, 8, None),
                    ('layer5', 96, 4, None),
                    ('layer7', 320, 2, None),
                ],
                ('neck.gap', 1280, 1, None),
            ),
            (
                # Its units begin with convolutions of the size before.
                'shufflenet-v2-1x_16xb64_in1k',
                64,
                [
                    ('layers.0', 116, 8, None),
                    ('layers.1', 232, 4, None),
                    ('layers.2', 464, 2, None),
                ],
                ('neck.gap', 1024, 1, None),
            ),
            (
                # Layers stand in one row; poolings change the size.
                'vgg11_8xb32_in1k',
                224,
                [
                    ('features.2', 128, 112, None),
                    ('features.5', 256, 56, None),
                    ('features.8', 512, 28, None),
                    ('features.11', 512, 14, None),
                ],
                ('backbone.classifier.4', 4096, 1, None),
            ),
            (
                # Single operations, as it has nothing else.
                'lenet5_mnist',
                32,
                [
                    ('features.2', 6, 14, None),
                    ('features.4', 16, 10, None),
                    ('features.5', 16, 5, None),
                    ('features.7', 120, 1, None),
                ],
                ('backbone.classifier.1', 84, 1, None),
            ),
            (
                # One layer yields the maps of all strides.
                'hrnet-w18_4xb32_in1k',
                64,
                [(f'stage4[{i}]', 18 * 2**i, 16 // 2**i, None) for i in range(4)],
                ('neck[0]', 2048, 1, None),
            ),
            (
                # Stages change the size behind their blocks, and yield tokens.
                'tinyvit-5m_8xb256_in1k',
                224,
                [
                    ('stages.0.blocks.1', 64, 56, None),
                    ('stages.1.blocks.1', 128, 28, {'prefix': 0}),
                    ('stages.2.blocks.5', 160, 14, {'prefix': 0}),
                    ('stages.3', 320, 7, {'prefix': 0}),
                ],
                ('backbone.norm3', 320, 1, None),
            ),
            (
                # Tokens with their height and width.
                'swin-tiny_16xb64_in1k',
                224,
                [(f'stages.{i}', 96 * 2**i, 56 // 2**i, None) for i in range(4)],
                ('neck.gap', 768, 1, None),
            ),
            (
                # Maps beside tokens with a class token.
                'conformer-tiny-p16_8xb128_in1k',
                224,
                [
                    ('conv_trans_4[0]', 64, 56, None),
                    ('conv_trans_8[0]', 128, 28, None),
                    ('conv_trans_12[1]', 384, 14, {'prefix': 1}),
                    ('conv_trans_12[0]', 256, 7, None),
                ],
                ('backbone.pooling', 256, 1, None),
            ),
        ],
    )
    def test_stages(self, name, size, stages, pooled):
        levels = levels_of(name, size)
        assert not levels.blocks
        found = [shown(stage) for stage in levels.stages]
        assert found == [(f'backbone.{stage[0]}', *stage[1:]) for stage in stages]
        assert shown(levels.pooled) == pooled

    @pytest.mark.parametrize(
        ('name', 'row', 'count', 'shape', 'pooled'),
        [
            (
                'deit-tiny-distilled_4xb256_in1k',
                'layers',
                12,
                (192, 14, {'prefix': 2}),
                'backbone[0][0]',
            ),
            (
                # Two transformers of other sizes make its tokens.
                't2t-vit-t-14_8xb64_in1k',
                'encoder',
                14,
                (384, 14, {'prefix': 1}),
                'backbone[0]',
            ),
            (
                # Class tokens come behind these blocks.
                'xcit-nano-12-p16_8xb128_in1k',
                'xca_layers',
                12,
                (128, 14, {'prefix': 0}),
                'backbone[0]',
            ),
            ('vig-tiny_8xb128_in1k', 'blocks', 12, (192, 14, None), 'neck.gap'),
        ],
    )
    def test_blocks_of_one_size(self, name, row, count, shape, pooled):
        levels = levels_of(name)
        assert levels.blocks
        names = [f'backbone.{row}.{i}' for i in range(count)]
        assert [shown(block) for block in levels.stages] == [
            (name, *shape) for name in names
        ]
        assert levels.pooled.name == pooled

    def test_what_is_left_out_is_told(self):
        others = levels_of('mobilenet-v2_8xb32_in1k', 64).others
        assert [(f.name, why) for f, why in others] == [
            ('backbone.layer1', 'of a fifth stride and more'),
            ('backbone.conv2', 'a single convolution'),
        ]

    def test_logits(self):
        for name, layer in (
            ('resnet18_8xb32_in1k', 'head.fc'),
            ('mobilenet-v2_8xb32_in1k', 'head.fc'),
        ):
            assert find_logits(probe_of(name, (64, 64))).name == layer

    def test_reversible_blocks_cannot_be_learned_from(self):
        """They run outside of autograd in training."""
        model = Candidate('revvit-small_8xb256_in1k').model
        probe = probe_features(model, (224, 224))
        trained = check_trainable(model, probe).keys
        assert choose_classifier_levels(probe).stages[0].name == 'backbone.layers.0[0]'
        [stage] = choose_classifier_levels(probe, trained).stages
        assert stage.name == 'backbone.fusion_layer'

    @pytest.mark.parametrize(
        ('name', 'reason'),
        [
            ('mmpretrain::levit/levit-128s_8xb256_in1k', "doesn't support training in"),
            ('efficientformer-l1_8xb128_in1k', "doesn't support to train"),
            ('vit-small-p14_dinov2-pre_headless', 'it has no head'),
        ],
    )
    def test_models_that_their_library_cannot_train(self, name, reason):
        model = Candidate(name).model
        with pytest.raises(ValueError, match=f'{reason}.*Choose another student'):
            check_trainable(model, probe_features(model, (224, 224)))


@pytest.fixture(scope='module')
def mmdet():
    """Detection, which needs the full mmcv."""
    pytest.importorskip('mmcv.ops')
    return pytest.importorskip('mmdet')


@pytest.mark.usefixtures('mmdet')
class TestDetectors:
    def levels(self, name):
        probe = probe_features(Candidate(name).model, (96, 160), heads=False)
        return choose_detector_levels(probe)

    def test_maps_of_the_neck_from_shallow_to_deep(self):
        levels = self.levels('yolov3_mobilenetv2_8xb24-320-300e_coco')
        assert [(f.name, f.stride) for f in levels.stages] == [
            ('neck[2]', 8),
            ('neck[1]', 16),
            ('neck[0]', 32),
        ]

    def test_strides_of_small_images(self):
        """Of 138 pixels 3 and 2 are left, as 64 and 128 do not divide it."""
        probe = probe_features(
            Candidate('retinanet_r18_fpn_1x_coco').model, (138, 138), heads=False
        )
        stages = choose_detector_levels(probe).stages
        assert [f.size[0] for f in stages] == [18, 9, 5, 3, 2]
        assert [f.stride for f in stages] == [8, 16, 32, 64, 128]

    def test_necks_in_a_row(self):
        levels = self.levels('atss_r50_fpn_dyhead_1x_coco')
        assert [f.name for f in levels.stages] == [f'neck[{i}]' for i in range(5)]

    def test_sizes_to_probe_with(self):
        for name, size in (
            ('retinanet_r18_fpn_1x_coco', (480, 608)),
            ('retinanet_r50_nasfpn_crop640-50e_coco', (640, 640)),
            ('detr_r50_8xb2-150e_coco', (481, 609)),
            ('ssd300_coco', (300, 300)),
            ('mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco', None),
        ):
            cfg = Candidate(name).cfg
            assert choose_probe_size(cfg) == (size or (512, 512))

    @pytest.mark.parametrize(
        ('name', 'size'),
        [
            ('ssdlite_mobilenetv2-scratch_8xb24-600e_coco', 256),
            ('retinanet_r18_fpn_1x_coco', 64),
        ],
    )
    def test_own_teacher_of_small_images(self, name, size):
        """The last two maps have one position, and so one stride."""
        model = Candidate(name).model
        levels = choose_detector_levels(probe_features(model, (size, size), False))
        assert levels.stages[-2].stride == levels.stages[-1].stride
        assert matched(levels, levels) == [(f.name, f.name) for f in levels.stages]

    def test_detector_without_a_neck(self):
        assert self.levels('faster-rcnn_r50-caffe-c4_1x_coco').stages == []


def feature(name, stride, size=64):
    call = Call(name, 'Layer', 0, 0, ('backbone',), 2, False)
    side = -(-size // stride)
    info = TensorInfo((2, 8, side, side), True, -1)
    return Feature(call, info, None, 8, (side, side), stride, None)


def side(name, *strides, size=64, **kwargs):
    return Levels([feature(f'{name}{s}', s, size) for s in strides], **kwargs)


def row(name, *strides, **kwargs):
    """Levels by their places, as several may have one stride."""
    return Levels([feature(f'{name}{i}', s) for i, s in enumerate(strides)], **kwargs)


def matched(student, teacher):
    matching = match_levels(student, teacher)
    return [(ours.name, theirs.name) for ours, theirs in matching.pairs]


class TestMatching:
    def test_by_stride(self):
        pairs = matched(side('s', 2, 4, 8, 16), side('t', 4, 8, 16, 32))
        assert pairs == [('s4', 't4'), ('s8', 't8'), ('s16', 't16')]

    @pytest.mark.parametrize('neck', [False, True])
    @pytest.mark.parametrize('strides', [(8, 8), (4, 8, 8, 8), (8, 16, 32, 64, 64)])
    def test_several_of_one_stride_one_by_one(self, strides, neck):
        ours, theirs = (row(name, *strides, is_neck=neck) for name in 'st')
        matching = match_levels(ours, theirs)
        pairs = [(f's{i}', f't{i}') for i in range(len(strides))]
        assert [(a.name, b.name) for a, b in matching.pairs] == pairs
        assert matching.rule == 'levels of one stride' and matching.left == []

    def test_of_more_maps_of_one_stride_the_deepest(self):
        """Dilated stages."""
        ours, theirs = row('s', 4, 8, 8, 8), row('t', 4, 8)
        assert matched(ours, theirs) == [('s0', 't0'), ('s3', 't1')]
        assert matched(theirs, ours) == [('t0', 's0'), ('t1', 's3')]
        left = [(role, f.name) for role, f in match_levels(ours, theirs).left]
        assert left == [('student', 's1'), ('student', 's2')]

    def test_of_more_maps_of_one_stride_the_first_of_a_neck(self):
        """Behind a pyramid's map of that stride comes its mask feature."""
        ours = row('s', 8, 8, 16, 32, is_neck=True)
        theirs = row('t', 8, 16, 32, is_neck=True)
        assert matched(ours, theirs) == [('s0', 't0'), ('s2', 't1'), ('s3', 't2')]
        assert matched(theirs, ours) == [('t0', 's0'), ('t1', 's2'), ('t2', 's3')]

    def test_one_common_stride_of_several_maps(self):
        """A dilated ResNet's and Fast-SCNN's."""
        ours, theirs = row('s', 4, 8, 8, 8), row('t', 8, 8, 32)
        assert matched(ours, theirs) == [('s2', 't0'), ('s3', 't1')]
        assert matched(theirs, ours) == [('t0', 's2'), ('t1', 's3')]
        heads = match_head_inputs(ours, theirs)
        assert [(s.name, t.name) for s, t in heads.pairs] == matched(ours, theirs)
        # All maps of a plain ViT have one.
        ours, theirs = row('s', 16, 16, 16, 16), row('t', 8, 16, 32)
        assert matched(ours, theirs) == [('s1', 't0'), ('s2', 't1'), ('s3', 't2')]
        ours, theirs = row('s', 8, 8, is_neck=True), row('t', 8, 16, is_neck=True)
        assert matched(ours, theirs) == [('s0', 't0')]

    def test_a_single_level_by_stride(self):
        assert matched(side('s', 32), side('t', 8, 16, 32)) == [('s32', 't32')]

    def test_from_the_deepest_up_where_strides_differ(self):
        pairs = matched(side('s', 1, 2, 4), side('t', 4, 8, 16, 32))
        assert pairs == [('s1', 't8'), ('s2', 't16'), ('s4', 't32')]

    def test_nearest_strides_of_necks(self):
        pairs = matched(
            side('s', 4, is_neck=True), side('t', 8, 16, 32, 64, is_neck=True)
        )
        assert pairs == [('s4', 't8')]

    def test_pooled_features_come_last(self):
        pool = feature('pool', 64)
        pairs = matched(side('s', 4, 8, pooled=pool), side('t', 4, 8, pooled=pool))
        assert pairs[-1] == ('pool', 'pool')

    def test_blocks_for_stages(self):
        blocks = Levels([feature(f't{i}', 16) for i in range(12)], blocks=True)
        pairs = matched(side('s', 4, 8, 16, 32), blocks)
        assert pairs == [('s4', 't2'), ('s8', 't5'), ('s16', 't8'), ('s32', 't11')]
        pairs = matched(blocks, side('s', 8, 16, 32))
        assert pairs == [('t3', 's8'), ('t7', 's16'), ('t11', 's32')]

    def test_blocks_for_blocks(self):
        ours = Levels([feature(f's{i}', 16) for i in range(6)], blocks=True)
        theirs = Levels([feature(f't{i}', 16) for i in range(24)], blocks=True)
        pairs = matched(ours, theirs)
        assert pairs == [('s0', 't5'), ('s2', 't11'), ('s3', 't17'), ('s5', 't23')]

    def test_who_is_left(self):
        matching = match_levels(side('s', 2, 4, 8), side('t', 4, 8, 16))
        left = [(role, f.name) for role, f in matching.left]
        assert left == [('student', 's2'), ('teacher', 't16')]

    def test_sizes_that_are_rounded_in_different_ways(self):
        matching = match_levels(side('s', 8, 16, size=72), side('t', 8, 16, size=64))
        assert [pair[0].name for pair in matching.uneven] == ['s8', 's16']

    def test_nothing_to_match(self):
        assert matched(Levels([]), side('t', 4, 8)) == []

    @pytest.mark.parametrize('total', [3, 4, 7, 12, 40])
    def test_take_evenly(self, total):
        taken = take_evenly(list(range(total)), 3)
        assert taken[-1] == total - 1
        gaps = [b - a for a, b in zip([-1, *taken], taken)]
        assert max(gaps) - min(gaps) <= 1


class TestFilters:
    def weights(self, mid, out, size, plan):
        kwargs = dict(plan) if 'modes' in plan else dict(plan, size=size)
        return FrequencyAttention(mid, out, with_local=False, **kwargs).filter.numel()

    def test_published_filters_stay_dense(self):
        for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7), (512, 1)):
            assert plan_dense(channels, channels, (size, size)) == {}

    def test_wide_ones_get_groups(self):
        """R50-MobileNetV1, of up to 102 M weights, has 8 in its shipped config."""
        assert plan_dense(128, 256, (56, 56)) == dict(groups=8)
        assert plan_dense(1024, 2048, (1, 1)) == {}

    def test_channels_that_do_not_divide_get_fewer_frequencies(self):
        plan = plan_dense(58, 255, (56, 56))
        assert plan == dict(modes=33)
        # What is left over is less than one more frequency would take.
        assert MOST_DENSE_WEIGHTS < 58 * 255 * 34**2
        assert self.weights(58, 255, (56, 56), plan) <= MOST_DENSE_WEIGHTS

    def test_maps_of_any_size(self):
        assert plan_modes(256, 256, 100) == dict(modes=16, groups=16)
        assert plan_modes(256, 256, 6) == dict(modes=6, groups=4)
        assert plan_modes(64, 64, 100) == dict(modes=16)
        assert plan_modes(64, 64, 0) == dict(modes=1)
        # A filter for modes has a column more than one for a map has.
        weights = self.weights(256, 256, None, plan_modes(256, 256, 100))
        assert weights <= MOST_MODE_WEIGHTS * 17 / 16

    def test_layer_to_layer_frequencies_make_way_for_channels(self):
        assert plan_modes(256, 256, 100, mixed=True) == dict(modes=4)
        assert plan_modes(128, 256, 100, mixed=True) == dict(modes=5)
        assert plan_modes(64, 64, 100, mixed=True) == dict(modes=16)
        assert plan_modes(64, 64, 3, mixed=True) == dict(modes=3)
        # Of so many channels a group takes as many as four frequencies allow.
        assert plan_modes(512, 512, 100, mixed=True) == dict(modes=4, groups=4)
        assert plan_modes(2048, 2048, 100, mixed=True) == dict(modes=4, groups=64)
        for widths in ((256, 256), (128, 256), (512, 512), (2048, 2048)):
            plan = plan_modes(*widths, 100, mixed=True)
            # A column more than a map has.
            most = MOST_MODE_WEIGHTS * (1 + 1 / plan['modes'])
            assert self.weights(*widths, None, plan) <= most


class TestInputSize:
    def read(self, *pipeline, **dataset):
        dataset = dict(type='Images', **dataset, pipeline=list(pipeline))
        return read_input_size(Config(dict(train_dataloader=dict(dataset=dataset))))

    def test_last_of_resize_and_crop(self):
        size = self.read(
            dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)
        )
        assert (size.height, size.width, size.fixed) == (224, 224, True)

    def test_width_comes_first(self):
        size = self.read(dict(type='mmdet.Resize', scale=(300, 200), keep_ratio=False))
        assert (size.height, size.width, size.fixed) == (200, 300, True)

    def test_images_of_many_sizes(self):
        for transform in (
            dict(type='Resize', scale=(1333, 800), keep_ratio=True),
            dict(type='RandomChoiceResize', scales=[(480, 1333), (800, 1333)]),
        ):
            size = self.read(transform)
            assert (size.height, size.width, size.fixed) == (800, 1333, False)

    def test_data_set_around_a_data_set(self):
        cfg = dict(
            type='MultiImageMixDataset',
            dataset=dict(type='Images', pipeline=[dict(type='Resize', scale=100)]),
            pipeline=[dict(type='Mosaic', img_scale=(640, 640))],
        )
        cfg = Config(dict(train_dataloader=dict(dataset=cfg)))
        assert read_input_size(cfg).height == 640

    def test_pipeline_that_does_not_say(self):
        assert self.read(dict(type='RandomFlip')) is None
        assert read_input_size(Config(dict())) is None

    @pytest.mark.parametrize(
        ('divisor', 'size'),
        [
            (32, (480, 608)),
            (64, (448, 576)),
            (128, (384, 640)),
            (16, (496, 624)),
            (1, (481, 609)),
        ],
    )
    def test_odd_multiples_for_detectors(self, divisor, size):
        assert detector_size(divisor) == size

    def test_a_size_without_padding_shows_how_maps_are_rounded(self):
        """Down, up, and doubled from the deepest map: all differ at every stride."""
        for side in detector_size(1):
            for stride in (8, 16):
                doubled = -(-side // 32) * (32 // stride)
                assert len({side // stride, -(-side // stride), doubled}) == 3

    def fixed(self, size, scope='mmdet', **preprocessor):
        transform = dict(type='Resize', scale=(size, size), keep_ratio=False)
        loader = dict(dataset=dict(type='Images', pipeline=[transform]))
        model = dict(data_preprocessor=preprocessor)
        return Config(dict(default_scope=scope, model=model, train_dataloader=loader))

    @pytest.mark.parametrize(
        ('size', 'divisor', 'probed'),
        [
            (300, 1, 300),
            # Batches of these are padded.
            (300, 32, 320),
            (600, 32, 608),
            # About half, with the same rest where maps of a stride of 128 end.
            (800, 1, 416),
            (800, 32, 416),
            (672, 32, 416),
            (1024, 32, 512),
            (801, 1, 417),
        ],
    )
    def test_images_of_one_size(self, size, divisor, probed):
        cfg = self.fixed(size, pad_size_divisor=divisor)
        assert choose_probe_size(cfg) == (probed, probed)
        assert (size + -size % divisor - probed) % 128 == 0

    def test_other_padding_than_the_config_s(self):
        assert choose_probe_size(self.fixed(600), divisor=32) == (608, 608)
        assert choose_probe_size(self.fixed(600), divisor=1) == (600, 600)

    def test_padding_of_segmentors_and_classifiers(self):
        cfg = self.fixed(500, 'mmseg', size_divisor=32)
        assert choose_probe_size(cfg) == (512, 512)
        cfg = self.fixed(1000, 'mmseg', size_divisor=128)
        assert choose_probe_size(cfg) == (512, 512)
        cfg = self.fixed(30, 'mmpretrain')
        assert choose_probe_size(cfg) == (30, 30)
        # Theirs stands beside the model.
        cfg.data_preprocessor = dict(pad_size_divisor=32)
        assert choose_probe_size(cfg) == (32, 32)


def test_maps_with_channels_last():
    """SAM's encoder keeps (N, H, W, C)."""
    probe = probe_of('vit-base-p16_sam_headless', (224, 224))
    [last] = [f for f in find_features(probe) if f.name == 'backbone.layers.11']
    assert shown(last)[1:] == (768, 14, {'channels_last': True})
