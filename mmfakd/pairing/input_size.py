# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The size of the images that a config trains on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmfakd.datasets.wrappers import walk_wrappers

CLASSIFIER_SIZE = (224, 224)
_LARGEST_DETECTOR_SIZE = 640
# Transforms that set the size of images, and the arguments that say it.
_KINDS = ('Crop', 'Resize', 'Mosaic', 'MixUp')
_KEYS = ('crop_size', 'scale', 'img_scale', 'scales')


@dataclass(frozen=True)
class InputSize:
    """Size of a model's images.

    Args:
        height (int): Their height, or the short side of images of many sizes.
        width (int): Their width, or the long side.
        fixed (bool): Whether all images of a training have it.
        source (str): Where it was read.
    """

    height: int
    width: int
    fixed: bool
    source: str


def read_input_size(cfg: Config) -> InputSize | None:
    """Read the size of training images out of the pipeline of a config.

    Args:
        cfg (Config): The config.

    Returns:
        InputSize | None: What its training pipeline brings images to last; None where
        no transform of it says so.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    pipelines = [wrapped.get('pipeline') or [] for wrapped in walk_wrappers(dataset)]
    # The innermost data set's comes first.
    return _last_size(transform for found in reversed(pipelines) for transform in found)


def choose_probe_size(cfg: Config) -> tuple[int, int]:
    """Choose the size of the images that a config's model is probed with.

    Args:
        cfg (Config): The config.

    Returns:
        tuple[int, int]: Height and width: as its training pipeline has them. Of
        detectors, whose images have many sizes, one that is large enough, and no
        larger.
    """
    read = read_input_size(cfg)
    if cfg.get('default_scope') != 'mmdet':
        return (read.height, read.width) if read else CLASSIFIER_SIZE
    if read is None or not read.fixed:
        return detector_size(pad_size_divisor(cfg))
    if read.height <= _LARGEST_DETECTOR_SIZE:
        return read.height, read.width
    return read.height // 2, read.width // 2


def pad_size_divisor(cfg: Config) -> int:
    """Read what the sizes of a detector's batches are multiples of.

    Args:
        cfg (Config): The config.

    Returns:
        int: The number; 1 where batches are not padded.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    return preprocessor.get('pad_size_divisor', 1)


def detector_size(divisor: int) -> tuple[int, int]:
    """Choose a size of images that shows how maps are rounded.

    Args:
        divisor (int): What sizes of batches are multiples of.

    Returns:
        tuple[int, int]: Odd multiples of it, or odd numbers where it is small: maps
        whose sizes are rounded in different ways differ.
    """
    if divisor % 32:
        return 477, 605
    return tuple(divisor * (n // divisor // 2 * 2 + 1) for n in (480, 608))  # type: ignore[return-value]


def _last_size(transforms: Iterable[Any]) -> InputSize | None:
    """The size that a row of transforms brings images to."""
    found = None
    for transform in transforms:
        if isinstance(transform, Mapping):
            found = _size_of(transform) or found
    return found


def _size_of(transform: Mapping) -> InputSize | None:
    """The size that a transform brings images to, if it does."""
    kind = transform.get('type')
    kind = str(getattr(kind, '__name__', kind)).rpartition('.')[2]
    if kind == 'RandomChoice':
        # Of the branches of DETR's pipelines the last is the one with a crop.
        branch = transform['transforms'][-1]
        return _last_size([branch] if isinstance(branch, Mapping) else branch)
    if not any(word in kind for word in _KINDS):
        return None
    value = next((transform[key] for key in _KEYS if transform.get(key)), None)
    if isinstance(value, int) and 'Edge' not in kind:
        value = (value, value)
    if isinstance(value, (list, tuple)) and isinstance(value[-1], (list, tuple)):
        # Several to choose from; the largest stands last.
        value = value[-1]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    if not all(isinstance(number, int) and number > 0 for number in value):
        return None
    if transform.get('keep_ratio') or kind == 'RandomChoiceResize':
        return InputSize(min(value), max(value), False, kind)
    # Width and height, in the order of OpenCV.
    return InputSize(value[1], value[0], True, kind)
