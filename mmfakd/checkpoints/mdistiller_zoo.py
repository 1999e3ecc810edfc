# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The networks of the mdistiller zoo as mmpretrain classifiers."""

from __future__ import annotations

import copy
from typing import Any

from mmfakd.messages import near_names

# What the zoo's networks were trained with, for values up to 255. CIFAR's data sets
# give RGB images, files are read as BGR.
_CIFAR = dict(
    num_classes=100,
    mean=[129.3105, 124.1085, 112.404],
    std=[68.2125, 65.4075, 70.4055],
    to_rgb=False,
)
_IMAGENET = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
# Initialisation of the classifier, where it is not torch's own.
_TORCH_LINEAR = dict(type='Kaiming', layer='Linear', a=5**0.5, distribution='uniform')
_ZERO_BIAS = dict(_TORCH_LINEAR, mode='fan_in', nonlinearity='leaky_relu', bias=0)
_NORMAL = dict(type='Normal', layer='Linear', std=0.01)


def _cifar_resnet(depth: int, widen: int = 1) -> dict:
    backbone: dict[str, Any] = dict(type='mmfakd.CIFARResNet', depth=depth)
    if widen > 1:
        backbone.update(stem_channels=8 * widen, base_channels=16 * widen)
    return dict(backbone=backbone, channels=64 * widen)


def _wide_resnet(depth: int, widen: int) -> dict:
    backbone = dict(type='mmrazor.WideResNet', depth=depth, widen_factor=widen)
    return dict(backbone=backbone, channels=64 * widen, init_cfg=_ZERO_BIAS)


def _vgg(depth: int) -> dict:
    backbone = dict(type='mmfakd.CIFARVGG', depth=depth)
    return dict(backbone=backbone, channels=512, init_cfg=_NORMAL)


def _resnet(kind: str, depth: int, data: dict) -> dict:
    # The zoo starts residual branches at full strength.
    backbone = dict(type=kind, depth=depth, zero_init_residual=False)
    return dict(backbone=backbone, channels=2048 if depth >= 50 else 512, data=data)


_ZOO: dict[str, dict] = {
    **{f'resnet{d}': _cifar_resnet(d) for d in (8, 14, 20, 32, 44, 56, 110)},
    'resnet8x4': _cifar_resnet(8, 4),
    'resnet32x4': _cifar_resnet(32, 4),
    **{f'ResNet{d}': _resnet('ResNet_CIFAR', d, _CIFAR) for d in (18, 50)},
    **{f'wrn_{d}_{w}': _wide_resnet(d, w) for d in (16, 40) for w in (1, 2)},
    **{f'vgg{d}': _vgg(d) for d in (8, 11, 13, 16, 19)},
    'MobileNetV2': dict(
        backbone=dict(type='mmfakd.CIFARMobileNetV2'), channels=1280, init_cfg=_NORMAL
    ),
    'ShuffleV1': dict(backbone=dict(type='mmfakd.CIFARShuffleNetV1'), channels=960),
    'ShuffleV2': dict(backbone=dict(type='mmfakd.CIFARShuffleNetV2'), channels=1024),
    **{f'resnet{d}': _resnet('ResNet', d, _IMAGENET) for d in (18, 34, 50)},
    'MobileNetV1': dict(
        backbone=dict(type='mmfakd.MobileNetV1'), channels=1024, data=_IMAGENET
    ),
}
MDISTILLER_ARCHS = tuple(_ZOO)


def mdistiller_model_cfg(arch: str, num_classes: int | None = None) -> dict:
    """Config of the mmpretrain classifier that is a network of the mdistiller zoo.

    Args:
        arch (str): Name in the zoo, one of ``MDISTILLER_ARCHS``: for CIFAR
            ``resnet{8,14,20,32,44,56,110,8x4,32x4}``, ``ResNet{18,50}``,
            ``wrn_{16,40}_{1,2}``, ``vgg{8,11,13,16,19}``, ``MobileNetV2``,
            ``ShuffleV1`` and ``ShuffleV2``; for ImageNet ``MobileNetV1`` and, as the
            teachers that the field takes from torchvision, ``resnet{18,34,50}``.
            Capitals matter: ``ResNet18`` takes 32 x 32 pixels and ``resnet18``
            224 x 224.
        num_classes (int, optional): Defaults to 100 (CIFAR) or 1000 (ImageNet).

    Returns:
        dict: Config of an ``ImageClassifier`` with the zoo's normalisation. Trained
        from scratch, it starts from weights distributed as in the zoo.

    Raises:
        ValueError: For an unknown name; near names are listed.

    Examples:
        >>> from mmfakd.utils import mdistiller_model_cfg
        >>> cfg = mdistiller_model_cfg('resnet20')
        >>> cfg['backbone'], cfg['head']['num_classes']
        ({'type': 'mmfakd.CIFARResNet', 'depth': 20}, 100)
    """
    if arch not in _ZOO:
        near = near_names(arch, reversed(MDISTILLER_ARCHS))
        raise ValueError(
            f'arch={arch!r} is no network of the mdistiller zoo.'
            + (f' Near names: {", ".join(near)}.' if near else '')
            + f' Expected one of {", ".join(MDISTILLER_ARCHS)}.'
        )
    entry = copy.deepcopy({'data': _CIFAR, **_ZOO[arch]})
    preprocessor = entry['data']
    if num_classes is not None:
        preprocessor['num_classes'] = num_classes
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        data_preprocessor=preprocessor,
        backbone=entry['backbone'],
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=preprocessor['num_classes'],
            in_channels=entry['channels'],
            loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
            topk=(1, 5),
            init_cfg=entry.get('init_cfg'),
        ),
    )
