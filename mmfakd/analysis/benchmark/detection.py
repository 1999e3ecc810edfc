# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Connectors of a detector's feature pyramid, and what its training step takes."""

from __future__ import annotations

from functools import partial

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmfakd.registry import MODELS

from .measure import Case, Options, Side, training_passes
from .random_batch import detector_batch
from .step import floor_step
from .suites import CONFIGS, connector_config

# Faster R-CNN: maps of 256 channels, of these strides, on images of this size.
CONFIG = 'coco/fakd_review_faster-rcnn_r101_r50_8xb2_coco.py'
OTHERS = {
    'ReviewKD': 'coco/reviewkd_faster-rcnn_r101_r50_8xb2_coco.py',
    'FAM-KD, layer to layer': 'coco/fakd_layer_faster-rcnn_r101_r50_8xb2_coco.py',
}
STRIDES = (4, 8, 16, 32, 64)
HEIGHT, WIDTH, DIVISOR = 800, 1333, 32


def detection_cases(
    options: Options, batch_size: int | None = None, height: int | None = None
) -> list[Case]:
    """The connectors of Faster R-CNN R101-R50, and its training step.

    Images are random, as in :func:`step_cases`. A step is the student's own with the
    teacher's forward pass; the connectors beside it are what distillation adds, so
    that their time relative to it is the share.

    Args:
        options (Options): Device and precision.
        batch_size (int, optional): Images in place of the config's two.
        height (int, optional): Height of the images in place of 800 pixels; the width
            is in proportion, and both are padded.

    Returns:
        list[Case]: The connectors alone, and those with the step.
    """
    batch, height = batch_size or 2, height or HEIGHT
    width = round(height * WIDTH / HEIGHT)
    name = f'Faster R-CNN R101-R50, batch {batch}, {height} x {width} px'
    size = dict(batch=batch, height=height, width=width)
    parts = {'connectors': connector_sides, 'step': _step_sides}
    return [
        Case(f'{part} of {name}', partial(sides, options=options, **size), size)
        for part, sides in parts.items()
    ]


def connector_sides(
    batch: int, height: int, width: int, options: Options
) -> list[Side]:
    """Make sides of the connectors of five levels, of 256 channels each.

    Args:
        batch (int): Images.
        height (int): Their height in pixels, before they are padded.
        width (int): Their width.
        options (Options): Device and precision.

    Returns:
        list[Side]: FAM-KD, ReviewKD, and FAM-KD layer to layer.
    """
    paths = {'FAM-KD': CONFIG, **OTHERS}
    connectors = {name: connector_config(path) for name, path in paths.items()}
    padded = [-(-pixels // DIVISOR) * DIVISOR for pixels in (height, width)]
    features = [
        torch.randn(batch, channels, *(-(-pixels // stride) for pixels in padded))
        for channels, stride in zip(connectors['FAM-KD'].in_channels, STRIDES)
    ]
    modules = {name: MODELS.build(cfg) for name, cfg in connectors.items()}
    return training_passes(modules, features, options, True)


def _step_sides(batch: int, height: int, width: int, options: Options) -> list[Side]:
    cfg = Config.fromfile(CONFIGS / CONFIG)
    init_default_scope('mmdet')
    data = detector_batch(batch, (height, width), options.device)
    floor = floor_step(cfg, data, options)
    return [floor, *connector_sides(batch, height, width, options)]
