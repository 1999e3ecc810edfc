# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Layers, pyramids, and the growth of their cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmfakd.model_zoo.shipped import config_folder
from mmfakd.models.connectors.review_level import ACT, NORM, ReviewLevel
from mmfakd.models.layers import (
    AttentionBasedFusion,
    ConvTransform,
    FrequencyAttention,
    LocalCrossAttention,
)
from mmfakd.registry import MODELS

from .measure import Case, Options, Side, training_passes
from .naive_layers import naive_layer, use_naive_layers

CONFIGS = config_folder() / 'fakd'


class Size(NamedTuple):
    """The size of a batch of square maps."""

    batch: int
    channels: int
    pixels: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """tuple[int, int, int, int]: the shape of the tensor."""
        return *self, self.pixels

    def __str__(self) -> str:
        return f'batch {self.batch}, {self.channels} channels, {self.pixels} px'


# As in R56-R20 on CIFAR-100 and R34-R18 on ImageNet.
_CIFAR = [Size(64, 16, 32), Size(64, 32, 16), Size(64, 64, 8)]
_IMAGENET = [Size(32, 64, 56), Size(32, 128, 28), Size(32, 256, 14), Size(32, 512, 7)]
LAYERS = {
    FrequencyAttention: [*_CIFAR, *_IMAGENET],
    LocalCrossAttention: [*_CIFAR, Size(16, 64, 56), Size(16, 256, 14)],
}
_PAIRS = {
    'R56-R20': ('cifar100/{}_r56_r20_1xb64_cifar100.py', 64),
    'R34-R18': ('imagenet/{}_r34_r18_8xb32_in1k.py', 32),
}
# Configs of FAM-KD and ReviewKD, and the batch size on one device.
PYRAMIDS = {
    pair: (config.format('fakd_review'), config.format('reviewkd'), batch)
    for pair, (config, batch) in _PAIRS.items()
}
# One quantity varies, the others keep the value in the middle.
GROWTH = dict(
    pixels=(7, 14, 28, 56, 112),
    channels=(16, 32, 64, 128, 256),
    batch=(8, 16, 32, 64, 128),
)


def layer_sides(
    kind: Callable[..., nn.Module], size: Size, options: Options
) -> list[Side]:
    """A layer and its naive version, with the same weights.

    Args:
        kind (Callable): Class of the layer.
        size (Size): Size of the features.
        options (Options): Device and precision.

    Returns:
        list[Side]: Ours, then the naive one.
    """
    inputs = [torch.randn(size.shape)]
    layer: nn.Module
    if kind is FrequencyAttention:
        layer = kind(size.channels, size.channels, size=size.pixels)
    else:
        layer = kind(size.channels)
        inputs.append(torch.randn(size.shape))
    sides = {'mmfakd': layer, 'naive': naive_layer(layer)}
    return training_passes(sides, inputs, options)


def layer_cases(
    options: Options,
    batch_size: int | None = None,
    sides: Callable[..., list[Side]] = layer_sides,
) -> list[Case]:
    """Each layer against its naive version.

    Args:
        options (Options): Device and precision.
        batch_size (int, optional): Batch size in place of each case's own.
        sides (Callable): What is measured of a layer, called like
            :func:`layer_sides`, the default.

    Returns:
        list[Case]: One for each layer and size.
    """
    cases = []
    for kind, sizes in LAYERS.items():
        for size in sizes:
            size = size._replace(batch=batch_size or size.batch)
            build = partial(sides, kind, size, options)
            cases.append(Case(f'{kind.__name__}, {size}', build, size._asdict()))
    return cases


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
        build = partial(_pyramid_sides, ours, review, batch, options)
        cases.append(
            Case(f'{pair}, batch {batch}', build, dict(pair=pair, batch=batch))
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
    middle = Size(**{name: values[len(values) // 2] for name, values in GROWTH.items()})
    scale = 1.0 if batch_size is None else batch_size / middle.batch
    # Where the three lines cross it is measured once.
    lines: dict[Size, set[str]] = {}
    for quantity, values in GROWTH.items():
        for value in values:
            size = middle._replace(**{quantity: value})
            # A norm in training wants two samples.
            size = size._replace(batch=max(2, round(size.batch * scale)))
            lines.setdefault(size, set()).add(quantity)
    return [
        Case(
            str(size),
            partial(_level_sides, size, options),
            dict(size._asdict(), varied=sorted(varied)),
        )
        for size, varied in lines.items()
    ]


def connector_config(path: str) -> ConfigDict:
    """Read the connector of a shipped distillation config.

    Args:
        path (str): The config, within ``configs/fakd``.

    Returns:
        ConfigDict: Its connector.
    """
    return Config.fromfile(CONFIGS / path).model.distiller.connector


def _pyramid_sides(ours: str, review: str, batch: int, options: Options) -> list[Side]:
    cfg = connector_config(ours)
    sides = {'FAM-KD': cfg, 'ReviewKD': connector_config(review)}
    sides['FAM-KD, naive layers'] = cfg
    connectors = {name: MODELS.build(config) for name, config in sides.items()}
    use_naive_layers(connectors['FAM-KD, naive layers'])
    features = [
        torch.randn(batch, channels, size, size)
        for channels, size in zip(cfg.in_channels, cfg.sizes)
    ]
    return training_passes(connectors, features, options, True)


def _level_sides(size: Size, options: Options) -> list[Side]:
    channels, pixels = size.channels, size.pixels
    deeper = size._replace(pixels=-(-pixels // 2))
    shared: dict[str, Any] = dict(out_channels=channels, deeper_channels=channels)
    shared.update(size=(pixels, pixels), norm_cfg=NORM)
    level = partial(ReviewLevel, channels, channels, **shared)
    levels = {
        'FAM-KD': level(
            transform=FrequencyAttention(channels, channels, size=pixels),
            fusion=LocalCrossAttention(channels),
            act_cfg=ACT,
        ),
        'ReviewKD': level(
            transform=ConvTransform(channels, channels),
            fusion=AttentionBasedFusion(channels),
            always_match=True,
        ),
    }
    features = [torch.randn(size.shape), torch.randn(deeper.shape)]
    return training_passes(levels, features, options)
