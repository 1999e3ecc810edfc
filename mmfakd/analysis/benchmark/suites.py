# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Layers, pyramids, and the growth of their cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from mmengine.config import Config
from torch import nn

from mmfakd.model_zoo.shipped import config_folder
from mmfakd.models.connectors import ReviewLevel
from mmfakd.models.layers import (
    AttentionBasedFusion,
    ConvTransform,
    FrequencyAttention,
    LocalCrossAttention,
)
from mmfakd.registry import MODELS

from .measure import Case, Options, Side, training_pass
from .naive import naive_layer, use_naive_layers

CONFIGS = config_folder() / 'fakd'

# (batch, channels, pixels) as in R56-R20 on CIFAR-100 and R34-R18 on ImageNet.
LAYERS = {
    FrequencyAttention: [
        (64, 16, 32),
        (64, 32, 16),
        (64, 64, 8),
        (32, 64, 56),
        (32, 128, 28),
        (32, 256, 14),
        (32, 512, 7),
    ],
    LocalCrossAttention: [
        (64, 16, 32),
        (64, 32, 16),
        (64, 64, 8),
        (16, 64, 56),
        (16, 256, 14),
    ],
}
# Configs of FAM-KD and ReviewKD, and the batch size on one device.
PYRAMIDS = {
    'R56-R20': (
        'cifar100/fakd_review_r56_r20_1xb64_cifar100.py',
        'cifar100/reviewkd_r56_r20_1xb64_cifar100.py',
        64,
    ),
    'R34-R18': (
        'imagenet/fakd_review_r34_r18_8xb32_in1k.py',
        'imagenet/reviewkd_r34_r18_8xb32_in1k.py',
        32,
    ),
}
# One quantity varies, the others keep the value in the middle.
GROWTH = dict(
    pixels=(7, 14, 28, 56, 112),
    channels=(16, 32, 64, 128, 256),
    batch=(8, 16, 32, 64, 128),
)


def layer_cases(options: Options, batch_size: int | None = None) -> list[Case]:
    """Each layer against its naive version.

    Args:
        options (Options): Device and precision.
        batch_size (int, optional): Batch size in place of each case's own.

    Returns:
        list[Case]: One for each layer and size.
    """
    return [
        Case(name, partial(layer_sides, kind, *size, options), settings)
        for name, kind, size, settings in each_layer(batch_size)
    ]


def each_layer(
    batch_size: int | None = None,
) -> Iterator[tuple[str, type[nn.Module], tuple[int, int, int], dict[str, int]]]:
    """Go through the layers and sizes that are measured.

    Args:
        batch_size (int, optional): Batch size in place of each case's own.

    Yields:
        tuple: Name of the case; the layer; batch, channels and pixels; the same by
        name.
    """
    for kind, sizes in LAYERS.items():
        for own_batch, channels, pixels in sizes:
            size = batch_size or own_batch, channels, pixels
            settings = dict(zip(('batch', 'channels', 'pixels'), size))
            yield f'{kind.__name__}, {_size(*size)}', kind, size, settings


def pyramid_cases(options: Options, batch_size: int | None = None) -> list[Case]:
    """FAM-KD's pyramids against ReviewKD's, and against one of naive layers.

    The connectors are those of the shipped configs.

    Args:
        options (Options): Device and precision.
        batch_size (int, optional): Batch size in place of each case's own.

    Returns:
        list[Case]: One for each pair of networks.
    """
    cases = []
    for pair, (ours, review, own_batch) in PYRAMIDS.items():
        batch = batch_size or own_batch
        cases.append(
            Case(
                f'{pair}, batch {batch}',
                partial(_pyramid_sides, ours, review, batch, options),
                dict(pair=pair, batch=batch),
            )
        )
    return cases


def growth_cases(options: Options, batch_size: int | None = None) -> list[Case]:
    """A level of FAM-KD and one of ReviewKD, at sizes that differ in one quantity.

    Args:
        options (Options): Device and precision.
        batch_size (int, optional): The middle batch size.

    Returns:
        list[Case]: One for each size; ``varied`` of its settings names the quantities
        on whose line it lies.
    """
    scale = 1.0 if batch_size is None else batch_size / _middle('batch')
    # Where the three lines cross it is measured once.
    sizes: dict[tuple[int, int, int], set[str]] = {}
    for varied, values in GROWTH.items():
        for value in values:
            size = {name: _middle(name) for name in GROWTH}
            size[varied] = value
            # A norm in training wants two samples.
            batch = max(2, round(size['batch'] * scale))
            place = batch, size['channels'], size['pixels']
            sizes.setdefault(place, set()).add(varied)
    return [
        Case(
            _size(*size),
            partial(_level_sides, *size, options),
            dict(zip(('batch', 'channels', 'pixels'), size), varied=sorted(varied)),
        )
        for size, varied in sizes.items()
    ]


def _middle(name: str) -> int:
    return GROWTH[name][len(GROWTH[name]) // 2]


def _size(batch: int, channels: int, pixels: int) -> str:
    return f'batch {batch}, {channels} channels, {pixels} px'


def layer_sides(
    kind: Callable[..., nn.Module],
    batch: int,
    channels: int,
    pixels: int,
    options: Options,
) -> list[Side]:
    """A layer and its naive version, with the same weights.

    Args:
        kind (Callable): Class of the layer.
        batch (int): Batch size.
        channels (int): Channels in and out.
        pixels (int): Height and width.
        options (Options): Device and precision.

    Returns:
        list[Side]: Ours, then the naive one.
    """
    inputs = [torch.randn(batch, channels, pixels, pixels)]
    layer: nn.Module
    if kind is FrequencyAttention:
        layer = FrequencyAttention(channels, channels, size=pixels)
    else:
        layer = kind(channels)
        inputs.append(torch.randn_like(inputs[0]))
    return [
        training_pass('mmfakd', layer, inputs, options),
        training_pass('naive', naive_layer(layer), inputs, options),
    ]


def _pyramid_sides(ours: str, review: str, batch: int, options: Options) -> list[Side]:
    cfg = Config.fromfile(CONFIGS / ours).model.distiller.connector
    other = Config.fromfile(CONFIGS / review).model.distiller.connector
    features = [
        torch.randn(batch, channels, size, size)
        for channels, size in zip(cfg.in_channels, cfg.sizes)
    ]
    connectors = {'FAM-KD': MODELS.build(cfg), 'ReviewKD': MODELS.build(other)}
    connectors['FAM-KD, naive layers'] = naive = MODELS.build(cfg)
    use_naive_layers(naive)
    return [
        training_pass(name, connector, features, options, as_list=True)
        for name, connector in connectors.items()
    ]


def _level_sides(
    batch: int, channels: int, pixels: int, options: Options
) -> list[Side]:
    feature = torch.randn(batch, channels, pixels, pixels)
    deeper = torch.randn(batch, channels, -(-pixels // 2), -(-pixels // 2))
    size, norm = (pixels, pixels), dict(type='BN')
    fam = ReviewLevel(
        channels,
        channels,
        FrequencyAttention(channels, channels, size=size),
        channels,
        LocalCrossAttention(channels),
        deeper_channels=channels,
        size=size,
        norm_cfg=norm,
        act_cfg=dict(type='ReLU'),
    )
    review = ReviewLevel(
        channels,
        channels,
        ConvTransform(channels, channels),
        channels,
        AttentionBasedFusion(channels),
        deeper_channels=channels,
        size=size,
        always_match=True,
        norm_cfg=norm,
    )
    return [
        training_pass(name, level, [feature, deeper], options)
        for name, level in (('FAM-KD', fam), ('ReviewKD', review))
    ]
