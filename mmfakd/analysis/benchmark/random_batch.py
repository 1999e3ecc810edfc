# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Batches of random images, as a loader gives them but on the device already."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample

# In each image of a detector.
BOXES = 8


def random_batch(
    cfg: Config, student: BaseModel, count: int, size: tuple[int, int], device: str
) -> dict[str, Any]:
    """Make up a batch for a classifier or a detector.

    Args:
        cfg (Config): Config of the training.
        student (BaseModel): The model that is to be trained.
        count (int): Number of images.
        size (tuple[int, int]): Their height and width.
        device (str): Where they are to lie.

    Returns:
        dict[str, Any]: ``inputs`` and ``data_samples``.

    Raises:
        ValueError: If the model is neither.
    """
    mean = cfg.get('data_preprocessor', {}).get('mean', [0, 0, 0])
    classes = getattr(getattr(student, 'head', None), 'num_classes', None)
    if classes is not None:
        labels = torch.randint(classes, (count,)).tolist()
        samples = [DataSample().set_gt_label(label).to(device) for label in labels]
        images = torch.randint(256, (count, len(mean), *size), dtype=torch.uint8)
        return dict(inputs=images.to(device), data_samples=samples)
    heads = (student, getattr(student, 'roi_head', None))
    boxes = [getattr(part, 'bbox_head', None) for part in heads]
    for head in filter(None, boxes):
        return detector_batch(count, size, device, head.num_classes)
    raise ValueError(
        f'the student, {type(student).__name__}, has neither `head.num_classes` nor a '
        '`bbox_head`: the suite step makes up images and labels for classifiers and '
        'detectors only.'
    )


def detector_batch(
    count: int, size: tuple[int, int], device: str, classes: int = 80
) -> dict[str, Any]:
    """Make up images with boxes.

    Args:
        count (int): Number of images.
        size (tuple[int, int]): Their height and width.
        device (str): Where they are to lie.
        classes (int): Of the boxes. Defaults to 80.

    Returns:
        dict[str, Any]: ``inputs`` and ``data_samples``.
    """
    # Classification needs no mmdet.
    from mmdet.testing import demo_mm_inputs

    shapes, boxes = [(3, *size)] * count, [BOXES] * count
    return demo_mm_inputs(count, shapes, boxes, num_classes=classes, device=device)
