# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The size of the images that a config trains on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmfakd.datasets.random_state import same_random_state
from mmfakd.datasets.wrappers import (
    pipeline_of,
    walk_loaders,
    walk_wrappers,
)
from mmfakd.model_zoo.type_names import type_name

CLASSIFIER_SIZE = (224, 224)
_SEGMENTOR_SIZE = (512, 512)
_LARGEST_DETECTOR_SIZE = 640
_MEASURED = 8
# Strides of detectors' deepest maps; those of others are 32 at most.
_DETECTOR_STRIDE = 128
_STRIDE = 32
_LARGEST_SEGMENTOR_AREA = 640 * 640
# Transforms that set the size of images, and the arguments that say it.
_KINDS = ('Crop', 'Resize', 'Mosaic', 'MixUp', 'Pad')
_KEYS = ('crop_size', 'scale', 'img_scale', 'scales', 'size')
# They take height before width, where all others have the order of OpenCV.
_HEIGHT_FIRST = dict(
    mmpretrain=('RandomCrop', 'RandomResizedCrop'), mmseg=('RandomCrop',)
)
_ALL_HEIGHT_FIRST = ('torchvision', 'albumentations')
# They yield images of many sizes, whatever their arguments.
_VARYING = ('RandomResize', 'RandomChoiceResize')


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


def read_input_size(
    cfg: Config, loader: str = 'train_dataloader', padded: bool = True
) -> InputSize | None:
    """Read the size of images out of the pipeline of a config.

    Args:
        cfg (Config): The config.
        loader (str): Whose images. Defaults to those of the training.
        padded (bool): Whether padding counts, or only what it is done to. Defaults to
            True.

    Returns:
        InputSize | None: What that pipeline brings images to last; None where there is
        none, or no transform of it says so.
    """
    transforms = _transforms(cfg, loader)
    if not padded:
        transforms = (t for t in transforms if type_name(t) != 'Pad')
    return _last_size(transforms, cfg.get('default_scope') or 'mmpretrain')


def has_square_batches(cfg: Config) -> bool:
    """Tell whether all batches of a training are squares, be it of several sizes.

    Args:
        cfg (Config): The config.

    Returns:
        bool: Whether its pipeline and its batch augments say so.
    """
    square = False
    for transform in _transforms(cfg, 'train_dataloader'):
        size = _size_of(transform, cfg.get('default_scope') or 'mmpretrain')
        if transform.get('pad_to_square'):
            square = True
        elif size is not None and not transform.get('keep_ratio'):
            square = size.fixed and size.height == size.width
    kinds = {type_name(a) for a in preprocessor_of(cfg).get('batch_augments') or ()}
    # YOLOX's keeps the ratio of the sides.
    kinds.discard('BatchSyncRandomResize')
    return square and not any('Resize' in kind for kind in kinds)


def _transforms(cfg: Config, loader: str) -> Iterator[Mapping]:
    """What is done to images, one after the other."""
    loaders = walk_loaders(cfg.get(loader))
    dataset = next((loader['dataset'] for loader in loaders), None)
    pipelines = [pipeline_of(wrapped) for wrapped in walk_wrappers(dataset)]
    # The innermost data set's comes first.
    for transform in (t for found in reversed(pipelines) for t in found):
        yield _as_mapping(transform)


def _as_mapping(transform: Any) -> Mapping:
    """The same as a config; that of a data set that was built is an object."""
    if isinstance(transform, Mapping):
        return transform
    # Its arguments have the same names.
    return dict(vars(transform), type=type(transform).__name__)


def choose_probe_size(
    cfg: Config, whole: bool = False, divisor: int | None = None
) -> tuple[int, int]:
    """Choose the size of the images that a config's model is probed with.

    Args:
        cfg (Config): The config.
        whole (bool): Whether to take large crops of segmentors as they are.
        divisor (int, optional): What sizes of batches are to be multiples of. Defaults
            to None, for what the config says.

    Returns:
        tuple[int, int]: Height and width: as its training pipeline has them, padded as
        batches are. Of detectors, whose images have many sizes, one that is large
        enough, and no larger; of large images and crops of one size about half of it.
    """
    read = read_input_size(cfg)
    divisor = divisor or pad_size_divisor(cfg)
    if cfg.get('default_scope') == 'mmseg':
        size = _segmentor_size(cfg, read, divisor)
        large = math.prod(size) > _LARGEST_SEGMENTOR_AREA
        return _half(size, math.lcm(_STRIDE, divisor)) if large and not whole else size
    if cfg.get('default_scope') != 'mmdet':
        if read is None or not read.fixed:
            read = measure_images(cfg) or read
        size = (read.height, read.width) if read else CLASSIFIER_SIZE
        return padded_size(size, divisor)
    if read is None or not read.fixed:
        return detector_size(divisor)
    size = padded_size((read.height, read.width), divisor)
    large = size[0] > _LARGEST_DETECTOR_SIZE
    return _half(size, math.lcm(_DETECTOR_STRIDE, divisor)) if large else size


def _segmentor_size(
    cfg: Config, read: InputSize | None, divisor: int
) -> tuple[int, int]:
    """What batches are padded to, else what the pipeline crops."""
    padded = preprocessor_of(cfg).get('size')
    if padded is not None:
        return tuple(padded)
    return padded_size((read.height, read.width) if read else _SEGMENTOR_SIZE, divisor)


def _half(size: tuple[int, int], step: int) -> tuple[int, int]:
    """About half of a size, never less."""
    # What is left of the number when it is divided decides how maps are rounded.
    return tuple(n - n // (2 * step) * step for n in size)  # type: ignore[return-value]


def padded_size(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Pad a size as batches are.

    Args:
        size (tuple[int, int]): Height and width of the images.
        divisor (int): What sizes of batches are multiples of.

    Returns:
        tuple[int, int]: Height and width of their batch.
    """
    height, width = (-(-n // divisor) * divisor for n in size)
    return height, width


def measure_images(cfg: Config) -> InputSize | None:
    """Measure the first training images, where their pipeline does not say their size.

    Args:
        cfg (Config): The config.

    Returns:
        InputSize | None: Their size, of several the largest; None where the data set
        cannot be read.
    """
    loader = next(walk_loaders(cfg.get('train_dataloader')), None)
    if loader is None:
        return None
    try:
        with same_random_state():
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                dataset = DATASETS.build(loader['dataset'])
            count = min(len(dataset), _MEASURED)
            shapes = [tuple(dataset[i]['inputs'].shape[-2:]) for i in range(count)]
    except Exception:
        # It is not here, or of another form.
        return None
    height, width = (max(sides) for sides in zip(*shapes))
    return InputSize(height, width, len(set(shapes)) == 1, 'the first images')


def pad_size_divisor(cfg: Config) -> int:
    """Read what the sizes of batches are multiples of.

    Args:
        cfg (Config): The config.

    Returns:
        int: The number; 1 where batches are not padded.
    """
    found = preprocessor_of(cfg)
    # A segmentor's has another name for it.
    return found.get('pad_size_divisor') or found.get('size_divisor') or 1


def augmented_size(cfg: Config, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Tell what a detector's batch augments make of the size of its batches.

    Args:
        cfg (Config): The config.
        size (tuple[int, int], optional): Height and width of all batches before; None
            where they have several.

    Returns:
        tuple[int, int] | None: Those after; None where they have several.
    """
    for augment in preprocessor_of(cfg).get('batch_augments') or ():
        name = type_name(augment)
        if name == 'BatchFixedSizePad':
            size = tuple(augment['size'])
        elif 'Resize' in name:
            # As YOLOX's, it draws a size every few iterations.
            size = None
    return size


def preprocessor_of(cfg: Config) -> Mapping:
    """Find the preprocessor of a model, which classifiers have beside it.

    Args:
        cfg (Config): The config.

    Returns:
        Mapping: Its config; empty where there is none.
    """
    return cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}


def detector_size(divisor: int) -> tuple[int, int]:
    """Choose a size of images that shows how maps are rounded.

    Args:
        divisor (int): What sizes of batches are multiples of.

    Returns:
        tuple[int, int]: Odd multiples of it: maps whose sizes are rounded down or up,
        or doubled from deeper ones, differ. Of 1 they are a pixel more than multiples
        of 32, where the three differ at every level.
    """
    return tuple(divisor * (n // divisor // 2 * 2 + 1) for n in (480, 608))  # type: ignore[return-value]


def _last_size(transforms: Iterable[Any], scope: str) -> InputSize | None:
    """The size that a row of transforms brings images to."""
    found = None
    for transform in transforms:
        found = _size_of(_as_mapping(transform), scope) or found
    return found


def _size_of(transform: Mapping, scope: str) -> InputSize | None:
    """The size that a transform brings images to, if it does."""
    name = transform.get('type')
    name = str(getattr(name, '__name__', name))
    package, _, kind = re.sub('[/:]', '.', name).rpartition('.')
    scope = package.partition('.')[0] or scope
    inner = transform.get('transforms')
    if kind == 'RandomChoice' and inner:
        # Of the branches of DETR's pipelines the last is the one with a crop.
        inner = [inner[-1]] if isinstance(inner[-1], Mapping) else inner[-1]
    if isinstance(inner, (list, tuple)):
        # Of Albumentations, too, whose names stand for themselves.
        return _last_size(inner, 'albumentations' if 'Albu' in kind else scope)
    if not any(word in kind for word in _KINDS):
        return None
    value = _pixels(transform, kind, scope)
    if value is None:
        return None
    between = 'range' in str(transform.get('crop_type')) and value[0] != value[1]
    if transform.get('keep_ratio') or kind in _VARYING or between:
        return InputSize(min(value), max(value), False, kind)
    if scope in _ALL_HEIGHT_FIRST or kind in _HEIGHT_FIRST.get(scope, ()):
        return InputSize(value[0], value[1], True, kind)
    return InputSize(value[1], value[0], True, kind)


def _pixels(transform: Mapping, kind: str, scope: str) -> Sequence[int] | None:
    """The two numbers that say a size."""
    if scope == 'albumentations' and 'height' in transform:
        value: Any = (transform['height'], transform.get('width'))
    elif scope in _ALL_HEIGHT_FIRST:
        # Of torchvision `scale` is a share of the area.
        value = transform.get('size')
    else:
        value = next((transform[key] for key in _KEYS if transform.get(key)), None)
    if isinstance(value, int) and 'Edge' not in kind:
        if scope == 'torchvision' and kind == 'Resize':
            # It is that of the short side.
            return None
        value = (value, value)
    if isinstance(value, (list, tuple)) and isinstance(value[-1], (list, tuple)):
        # Several to choose from; the largest stands last.
        value = value[-1]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    if not all(isinstance(number, int) and number > 0 for number in value):
        return None
    return value
