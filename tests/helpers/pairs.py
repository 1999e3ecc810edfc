# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The pairs of stock models that are tried, and the models by short names."""

from typing import NamedTuple

# Models by the smallest input, height and width, on which training makes sense: small
# for those that take any, else what their windows, positions or linear layers need.
CLASSIFIERS = {
    (64, 64): {
        'resnet18': 'resnet/resnet18_8xb32_in1k',
        'resnet34': 'resnet/resnet34_8xb32_in1k',
        'resnet50': 'resnet/resnet50_8xb32_in1k',
        'wide-resnet50': 'wrn/wide-resnet50_8xb32_in1k',
        'resnet50-rsb': 'resnet/resnet50_8xb256-rsb-a1-600e_in1k',
        'resnest50': 'resnest/resnest50_32xb64_in1k',
        'resnext50-32x4d': 'resnext/resnext50-32x4d_8xb32_in1k',
        'resnext101-32x4d': 'resnext/resnext101-32x4d_8xb32_in1k',
        'seresnet50': 'seresnet/seresnet50_8xb32_in1k',
        'seresnext50-32x4d': 'seresnet/seresnext50-32x4d_8xb32_in1k',
        'res2net50-w14-s8': 'res2net/res2net50-w14-s8_8xb32_in1k',
        'res2net101-w26-s4': 'res2net/res2net101-w26-s4_8xb32_in1k',
        'regnetx-400mf': 'regnet/regnetx-400mf_8xb128_in1k',
        'regnetx-1.6gf': 'regnet/regnetx-1.6gf_8xb128_in1k',
        'densenet121': 'densenet/densenet121_4xb256_in1k',
        'densenet169': 'densenet/densenet169_4xb256_in1k',
        'mobilenet-v2': 'mobilenet_v2/mobilenet-v2_8xb32_in1k',
        'mobilenet-v3-small-050': 'mobilenet_v3/mobilenet-v3-small-050_8xb128_in1k',
        'mobilenet-v3-large': 'mobilenet_v3/mobilenet-v3-large_8xb128_in1k',
        'shufflenet-v1-1x': 'shufflenet_v1/shufflenet-v1-1x_16xb64_in1k',
        'hrnet-w18': 'hrnet/hrnet-w18_4xb32_in1k',
        'shufflenet-v2-1x': 'shufflenet_v2/shufflenet-v2-1x_16xb64_in1k',
        'efficientnet-b0': 'efficientnet/efficientnet-b0_8xb32_in1k',
        'efficientnet-b1': 'efficientnet/efficientnet-b1_8xb32_in1k',
        'efficientnetv2-b0': 'efficientnet_v2/efficientnetv2-b0_8xb32_in1k',
        'efficientnetv2-b1': 'efficientnet_v2/efficientnetv2-b1_8xb32_in1k',
        'convnext-tiny': 'convnext/convnext-tiny_32xb128_in1k',
        'convnext-small': 'convnext/convnext-small_32xb128_in1k',
        'convnext-v2-atto': 'convnext_v2/convnext-v2-atto_32xb32_in1k',
        'hornet-tiny': 'hornet/hornet-tiny_8xb128_in1k',
        'repvgg-A0': 'repvgg/repvgg-A0_8xb32_in1k',
        'repvgg-A1': 'repvgg/repvgg-A1_8xb32_in1k',
        'mobileone-s0': 'mobileone/mobileone-s0_8xb32_in1k',
        'repvgg-B0': 'repvgg/repvgg-B0_8xb32_in1k',
        'hornet-small': 'hornet/hornet-small_8xb64_in1k',
        'van-tiny': 'van/van-tiny_8xb128_in1k',
        'van-small': 'van/van-small_8xb128_in1k',
        'cspdarknet50': 'cspnet/cspdarknet50_8xb32_in1k',
        'cspresnext50': 'cspnet/cspresnext50_8xb32_in1k',
        'hrnet-w30': 'hrnet/hrnet-w30_4xb32_in1k',
        'convmixer-768-32': 'convmixer/convmixer-768-32_10xb64_in1k',
        'convmixer-1024-20': 'convmixer/convmixer-1024-20_10xb64_in1k',
        'poolformer-s12': 'poolformer/poolformer-s12_32xb128_in1k',
        'poolformer-s24': 'poolformer/poolformer-s24_32xb128_in1k',
        'riformer-s12': 'riformer/riformer-s12_8xb128_in1k',
        'mobilenet-v3-small': 'mobilenet_v3/mobilenet-v3-small_8xb128_in1k',
        'twins-pcpvt-small': 'twins/twins-pcpvt-small_8xb128_in1k',
        'mobilevit-xxsmall': 'mobilevit/mobilevit-xxsmall_8xb128_in1k',
        'edgenext-xxsmall': 'edgenext/edgenext-xxsmall_8xb256_in1k',
        'xcit-nano-12-p16': 'xcit/xcit-nano-12-p16_8xb128_in1k',
        'twins-svt-small': 'twins/twins-svt-small_8xb128_in1k',
        'mobilevit-xsmall': 'mobilevit/mobilevit-xsmall_8xb128_in1k',
    },
    (96, 96): {
        'inception-v3': 'inception_v3/inception-v3_8xb32_in1k',
    },
    (224, 224): {
        'vgg11': 'vgg/vgg11_8xb32_in1k',
        'vgg13bn': 'vgg/vgg13bn_8xb32_in1k',
        'vgg11bn': 'vgg/vgg11bn_8xb32_in1k',
        'swin-tiny': 'swin_transformer/swin-tiny_16xb64_in1k',
        'deit-small': 'deit/deit-small_4xb256_in1k',
        'vit-base-p16': 'vision_transformer/vit-base-p16_64xb64_in1k',
        'deit3-small-p16': 'deit3/deit3-small-p16_64xb64_in1k',
        'davit-tiny': 'davit/davit-tiny_4xb256_in1k',
        'beit-base-p16': 'beit/benchmarks/beit-base-p16_8xb64_in1k',
        'mvitv2-tiny': 'mvit/mvitv2-tiny_8xb256_in1k',
        't2t-vit-t-14': 't2t_vit/t2t-vit-t-14_8xb64_in1k',
        'hivit-tiny-p16': 'hivit/hivit-tiny-p16_16xb64_in1k',
        'levit-128s': 'levit/levit-128s_8xb256_in1k',
        'efficientformer-l1': 'efficientformer/efficientformer-l1_8xb128_in1k',
        'deit-tiny': 'deit/deit-tiny_4xb256_in1k',
        'deit-tiny-distilled': 'deit/deit-tiny-distilled_4xb256_in1k',
        'tinyvit-5m': 'tinyvit/tinyvit-5m_8xb256_in1k',
        'deit-small-distilled': 'deit/deit-small-distilled_4xb256_in1k',
        'swin-small': 'swin_transformer/swin-small_16xb64_in1k',
        'tinyvit-11m': 'tinyvit/tinyvit-11m_8xb256_in1k',
        'vit-base-p32': 'vision_transformer/vit-base-p32_64xb64_in1k',
        'mlp-mixer-base-p16': 'mlp_mixer/mlp-mixer-base-p16_64xb64_in1k',
        'revvit-small': 'revvit/revvit-small_8xb256_in1k',
        'tnt-s-p16': 'tnt/tnt-s-p16_16xb64_in1k',
        'conformer-tiny-p16': 'conformer/conformer-tiny-p16_8xb128_in1k',
        'conformer-small-p16': 'conformer/conformer-small-p16_8xb128_in1k',
    },
    (256, 256): {
        'swinv2-tiny-w8': 'swin_transformer_v2/swinv2-tiny-w8_16xb64_in1k-256px',
    },
    (336, 336): {
        'eva02-tiny-p14': 'eva02/eva02-tiny-p14_in1k',
        'eva02-small-p14': 'eva02/eva02-small-p14_in1k',
    },
}
DETECTORS = {
    (128, 160): {
        'retinanet_r18': 'retinanet/retinanet_r18_fpn_1x_coco',
        'retinanet_r50': 'retinanet/retinanet_r50_fpn_1x_coco',
        'retinanet_r101': 'retinanet/retinanet_r101_fpn_1x_coco',
        'fcos_r18': (
            'fcos/fcos_r18_fpn_gn-head-center-normbbox-centeronreg-giou_'
            '8xb8-amp-lsj-200e_coco'
        ),
        'fcos_r101': 'fcos/fcos_r101-caffe_fpn_gn-head-1x_coco',
        'atss_r18': 'atss/atss_r18_fpn_8xb8-amp-lsj-200e_coco',
        'atss_r101': 'atss/atss_r101_fpn_1x_coco',
        'gfl_r50': 'gfl/gfl_r50_fpn_1x_coco',
        'gfl_r101': 'gfl/gfl_r101_fpn_ms-2x_coco',
        'vfnet_r50': 'vfnet/vfnet_r50_fpn_1x_coco',
        'vfnet_r101': 'vfnet/vfnet_r101_fpn_1x_coco',
        'paa_r50': 'paa/paa_r50_fpn_1x_coco',
        'paa_r101': 'paa/paa_r101_fpn_1x_coco',
        'tood_r50': 'tood/tood_r50_fpn_1x_coco',
        'tood_r101': 'tood/tood_r101_fpn_ms-2x_coco',
        'foveabox_r50': 'foveabox/fovea_r50_fpn_4xb4-1x_coco',
        'foveabox_r101': 'foveabox/fovea_r101_fpn_4xb4-1x_coco',
        'reppoints_r50': 'reppoints/reppoints-moment_r50_fpn_1x_coco',
        'rtmdet_tiny': 'rtmdet/rtmdet_tiny_8xb32-300e_coco',
        'rtmdet_s': 'rtmdet/rtmdet_s_8xb32-300e_coco',
        'rtmdet-ins_tiny': 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
        'rtmdet-ins_s': 'rtmdet/rtmdet-ins_s_8xb32-300e_coco',
        'yolox_nano': 'yolox/yolox_nano_8xb8-300e_coco',
        'yolox_s': 'yolox/yolox_s_8xb8-300e_coco',
        'yolov3_mobilenetv2': 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco',
        'yolov3_d53': 'yolo/yolov3_d53_8xb8-320-273e_coco',
        'faster-rcnn_r50': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        'faster-rcnn_r101': 'faster_rcnn/faster-rcnn_r101_fpn_1x_coco',
        'mask-rcnn_r50': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
        'mask-rcnn_r101': 'mask_rcnn/mask-rcnn_r101_fpn_1x_coco',
        'cascade-rcnn_r50': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
        'cascade-rcnn_r101': 'cascade_rcnn/cascade-rcnn_r101_fpn_1x_coco',
        'sparse-rcnn_r50': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco',
        'queryinst_r50': 'queryinst/queryinst_r50_fpn_1x_coco',
        'fcos_r50': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
        'yolox_tiny': 'yolox/yolox_tiny_8xb8-300e_coco',
        'retinanet_r50_nasfpn': 'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco',
        'faster-rcnn_r50_pafpn': 'pafpn/faster-rcnn_r50_pafpn_1x_coco',
        'atss_r50_dyhead': 'dyhead/atss_r50_fpn_dyhead_1x_coco',
        'atss_r50': 'atss/atss_r50_fpn_1x_coco',
        'retinanet_swin-t': 'swin/retinanet_swin-t-p4-w7_fpn_1x_coco',
        'retinanet_pvtv2-b0': 'pvt/retinanet_pvtv2-b0_fpn_1x_coco',
        'retinanet_pvt-t': 'pvt/retinanet_pvt-t_fpn_1x_coco',
        'faster-rcnn_hrnet-w18': 'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco',
    },
    # Their proposals are more than a smaller image has.
    (256, 320): {
        'deformable-detr_r50': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
        'dino_r50': 'dino/dino-4scale_r50_8xb2-12e_coco',
        'ddq-detr_r50': 'ddq/ddq-detr-4scale_r50_8xb2-12e_coco',
        'conditional-detr_r50': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
        'dab-detr_r50': 'dab_detr/dab-detr_r50_8xb2-50e_coco',
        'detr_r18': 'detr/detr_r18_8xb2-500e_coco',
        'detr_r50': 'detr/detr_r50_8xb2-150e_coco',
    },
    (300, 300): {
        'ssd300': 'ssd/ssd300_coco',
    },
    # A deformable convolution of 3 x 3 pixels runs over a map of a 128th of the size.
    (320, 320): {
        'ssdlite_mobilenetv2': 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco',
        'ddod_r50': 'ddod/ddod_r50_fpn_1x_coco',
    },
}


class Pair(NamedTuple):
    """A student and a teacher, by the paths of their configs.

    `size` is the height and width of the input; `by_default` says whether the pair
    runs in a plain test run, or only in that of the whole matrix.
    """

    name: str
    student: str
    teacher: str
    size: tuple
    method: str
    by_default: bool

    @property
    def library(self):
        return self.student.partition('::')[0]


CI = True


def pairs(models, *rows):
    """Pairs of short names, each with its method and `CI` where they are no default."""
    library = 'mmpretrain' if models is CLASSIFIERS else 'mmdet'
    known = {
        name: (f'{library}::{config}.py', size)
        for size, configs in models.items()
        for name, config in configs.items()
    }
    found = []
    for student, teacher, *rest in rows:
        method = next((word for word in rest if word is not CI), 'fakd-review')
        configs, sizes = zip(known[student], known[teacher])
        # Both models see one image.
        size = tuple(map(max, *sizes))
        name = f'{student}-{teacher}-{method}'
        found.append(Pair(name, *configs, size, method, CI in rest))
    return found


CLASSIFICATION = pairs(
    CLASSIFIERS,
    # Convolutional students and teachers.
    ('resnet18', 'resnet34', CI),
    ('resnet18', 'resnet50', 'reviewkd'),
    ('resnet18', 'resnet50', 'fakd-layer'),
    ('resnet18', 'resnet50', 'kd'),
    ('resnet34', 'wide-resnet50'),
    ('resnet50-rsb', 'resnest50'),
    ('resnext50-32x4d', 'resnext101-32x4d'),
    ('seresnet50', 'seresnext50-32x4d'),
    ('res2net50-w14-s8', 'res2net101-w26-s4'),
    ('regnetx-400mf', 'regnetx-1.6gf'),
    ('densenet121', 'densenet169'),
    ('mobilenet-v2', 'densenet121'),
    ('mobilenet-v2', 'resnet50', 'kd'),
    ('mobilenet-v3-small-050', 'mobilenet-v3-large', CI),
    ('shufflenet-v1-1x', 'hrnet-w18'),
    ('shufflenet-v2-1x', 'resnext50-32x4d'),
    ('efficientnet-b0', 'efficientnet-b1'),
    ('efficientnetv2-b0', 'efficientnetv2-b1', 'fakd-layer'),
    ('convnext-tiny', 'convnext-small'),
    ('convnext-v2-atto', 'hornet-tiny'),
    ('repvgg-A0', 'repvgg-A1'),
    ('mobileone-s0', 'repvgg-B0', 'reviewkd'),
    ('hornet-tiny', 'hornet-small'),
    ('van-tiny', 'van-small'),
    ('cspdarknet50', 'cspresnext50'),
    ('hrnet-w18', 'hrnet-w30'),
    ('convmixer-768-32', 'convmixer-1024-20'),
    ('efficientnet-b0', 'convmixer-768-32'),
    ('poolformer-s12', 'poolformer-s24'),
    ('riformer-s12', 'poolformer-s12'),
    ('vgg11', 'vgg13bn'),
    ('resnet18', 'vgg11bn'),
    ('mobilenet-v2', 'inception-v3'),
    # Transformers teach convolutional students.
    ('mobilenet-v2', 'swin-tiny', CI),
    ('resnet50', 'deit-small'),
    ('resnet18', 'vit-base-p16'),
    ('resnet18', 'deit3-small-p16', 'fakd-layer'),
    ('mobilenet-v3-small', 'twins-pcpvt-small'),
    ('regnetx-400mf', 'davit-tiny'),
    ('resnet34', 'beit-base-p16'),
    ('efficientnet-b0', 'mvitv2-tiny'),
    ('shufflenet-v2-1x', 't2t-vit-t-14'),
    ('convnext-v2-atto', 'hivit-tiny-p16'),
    ('mobileone-s0', 'levit-128s', 'reviewkd'),
    ('resnet18', 'efficientformer-l1'),
    ('resnext50-32x4d', 'swinv2-tiny-w8'),
    # Convolutional networks teach transformers.
    ('deit-tiny', 'resnet50', CI),
    ('deit-tiny-distilled', 'regnetx-1.6gf'),
    ('swin-tiny', 'convnext-tiny'),
    ('tinyvit-5m', 'resnet50', 'reviewkd'),
    ('davit-tiny', 'convnext-tiny', 'fakd-layer'),
    ('mobilevit-xxsmall', 'resnet34', CI),
    ('edgenext-xxsmall', 'convnext-tiny'),
    ('xcit-nano-12-p16', 'regnetx-400mf'),
    ('twins-svt-small', 'resnet50'),
    # Transformers and mixers teach each other.
    ('deit-tiny', 'deit-small'),
    ('deit-tiny-distilled', 'deit-small-distilled'),
    ('deit-tiny', 'swin-tiny'),
    ('swin-tiny', 'swin-small'),
    ('swinv2-tiny-w8', 'resnet50'),
    ('tinyvit-5m', 'tinyvit-11m'),
    ('xcit-nano-12-p16', 'deit3-small-p16'),
    ('vit-base-p32', 'vit-base-p16'),
    ('poolformer-s12', 'swin-tiny'),
    ('mlp-mixer-base-p16', 'deit3-small-p16'),
    ('revvit-small', 'deit-small'),
    ('twins-pcpvt-small', 'twins-svt-small'),
    ('t2t-vit-t-14', 'tnt-s-p16'),
    ('deit-tiny', 'beit-base-p16', 'kd'),
    ('conformer-tiny-p16', 'conformer-small-p16'),
    ('mobilevit-xxsmall', 'mobilevit-xsmall'),
    ('eva02-tiny-p14', 'eva02-small-p14'),
)
DETECTION = pairs(
    DETECTORS,
    # One stage.
    ('retinanet_r18', 'retinanet_r50', CI),
    ('retinanet_r18', 'retinanet_r101', 'reviewkd'),
    ('retinanet_r18', 'retinanet_r50', 'fakd-layer'),
    ('fcos_r18', 'fcos_r101'),
    ('atss_r18', 'atss_r101'),
    ('gfl_r50', 'gfl_r101'),
    ('vfnet_r50', 'vfnet_r101'),
    ('paa_r50', 'paa_r101'),
    ('tood_r50', 'tood_r101'),
    ('foveabox_r50', 'foveabox_r101'),
    ('reppoints_r50', 'retinanet_r101'),
    ('rtmdet_tiny', 'rtmdet_s', CI),
    ('rtmdet-ins_tiny', 'rtmdet-ins_s'),
    ('yolox_nano', 'yolox_s'),
    ('yolov3_mobilenetv2', 'yolov3_d53'),
    ('ddod_r50', 'gfl_r101'),
    ('ssdlite_mobilenetv2', 'ssd300'),
    # Two stages and more.
    ('faster-rcnn_r50', 'faster-rcnn_r101'),
    ('mask-rcnn_r50', 'mask-rcnn_r101'),
    ('cascade-rcnn_r50', 'cascade-rcnn_r101'),
    ('sparse-rcnn_r50', 'queryinst_r50'),
    # Across families.
    ('retinanet_r18', 'faster-rcnn_r50', CI),
    ('fcos_r50', 'cascade-rcnn_r101'),
    ('faster-rcnn_r50', 'retinanet_r101'),
    ('yolox_tiny', 'rtmdet_s'),
    # Other necks and backbones.
    ('retinanet_r50', 'retinanet_r50_nasfpn'),
    ('retinanet_r50_nasfpn', 'retinanet_r101'),
    ('faster-rcnn_r50_pafpn', 'faster-rcnn_r101'),
    ('atss_r50_dyhead', 'atss_r101'),
    ('atss_r50', 'atss_r50_dyhead'),
    ('retinanet_swin-t', 'retinanet_r101'),
    ('retinanet_r18', 'retinanet_swin-t'),
    ('retinanet_pvtv2-b0', 'retinanet_pvt-t'),
    ('faster-rcnn_r50', 'faster-rcnn_hrnet-w18'),
    # Queries.
    ('deformable-detr_r50', 'dino_r50'),
    ('dino_r50', 'ddq-detr_r50'),
    ('conditional-detr_r50', 'dab-detr_r50'),
    ('detr_r18', 'detr_r50'),
)
PAIRS = [*CLASSIFICATION, *DETECTION]
