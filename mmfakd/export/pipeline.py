# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the test pipeline of a config does to an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmfakd.checkpoints.image_files import TO_GREY
from mmfakd.datasets.wrappers import (
    pipeline_of,
    walk_loaders,
    walk_transforms,
    walk_wrappers,
)
from mmfakd.model_zoo.type_names import type_name

# Their arrays are RGB, as are those of everyone who publishes them, unless it is said.
_RGB_ARRAYS = ('CIFAR10', 'CIFAR100')
_TURNED = dict(RGB='BGR', BGR='RGB')
AS_LOADED = 'as in the data set'
# They change values, which only the data preprocessor is read for.
_VALUES = (
    *('Normalize', 'ToTensor', 'ConvertImageDtype', 'ToDtype', 'ConvertDtype'),
    *('ToFloat', 'RandomGrayscale', 'Rerange', 'CLAHE', 'AdjustGamma', 'Equalize'),
    *('AutoContrast', 'ColorJitter', 'Lighting', 'Invert', 'PhotoMetricDistortion'),
)
_ADVICE = 'cannot be stated in the file: export a .pth file.'


def test_pipeline(cfg: Config) -> Iterator[dict]:
    """Go through the transforms of test images, as the config has them.

    Args:
        cfg (Config): The config.

    Yields:
        dict: Each, as plain values.
    """
    for loader in walk_loaders(cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        for dataset in walk_wrappers(loader.get('dataset')):
            if pipeline_of(dataset):
                yield from (_plain(t) for t in pipeline_of(dataset))
                return


def _all_transforms(cfg: Config) -> Iterator[Mapping]:
    """Go through the transforms of test images, and through those within them."""
    found = walk_transforms(list(test_pipeline(cfg)))
    return (transform for transform in found if isinstance(transform, Mapping))


def _plain(transform: Any) -> Any:
    """A transform as plain values, for JSON."""
    if isinstance(transform, Mapping):
        return {key: _plain(value) for key, value in transform.items()}
    if isinstance(transform, (list, tuple)):
        return [_plain(value) for value in transform]
    plain = isinstance(transform, (str, int, float, bool, type(None)))
    return transform if plain else getattr(transform, '__name__', str(transform))


def loaded_channels(cfg: Config) -> int:
    """Read how many channels test images have as they are loaded.

    Args:
        cfg (Config): The config.

    Returns:
        int: 3 where a transform loads colour files, else 1.
    """
    loads = [t for t in test_pipeline(cfg) if 'LoadImage' in type_name(t)]
    colour = any(t.get('color_type', 'color') != 'grayscale' for t in loads)
    return 3 if colour else 1


def refuse_values(cfg: Config) -> None:
    """Refuse transforms of test images that change values.

    Args:
        cfg (Config): The config.

    Raises:
        ValueError: If there is one; it is named.
    """
    for transform in _all_transforms(cfg):
        name = type_name(transform)
        # With `keys` it is mmcv's, which turns arrays into tensors and no more. That
        # an image is grey the file says by its order of channels.
        if name in _VALUES and 'keys' not in transform and transform != TO_GREY:
            raise ValueError(
                f'{transform["type"]} in its test pipeline changes the values of '
                f'images beside the data_preprocessor, which {_ADVICE} Or let the '
                'data_preprocessor do it, with `mean` and `std`.'
            )


def read_padding(
    cfg: Config, sides: Sequence[int], keep_ratio: bool, channels: int, swap: bool
) -> tuple[list[int] | None, list[float]]:
    """Read what a transform pads resized test images to, below and to the right.

    Args:
        cfg (Config): The config.
        sides (Sequence[int]): Height and width of the images, or their limits.
        keep_ratio (bool): Whether these are limits.
        channels (int): Number of channels.
        swap (bool): Whether the data preprocessor turns their order.

    Returns:
        tuple[list[int] | None, list[float]]: Height and width, None without padding,
        and the value of each channel, in the order that they have at last.

    Raises:
        ValueError: If the size depends on the image, or the values do.
    """
    pad: Mapping = {}
    for transform in _all_transforms(cfg):
        name = type_name(transform)
        if name in ('Pad', 'RandomCenterCropPad'):
            pad = transform
        elif 'Resize' in name or 'Crop' in name:
            pad = {}
    if not pad:
        return None, [0.0] * channels
    size = _padded_size(pad, sides, keep_ratio)
    if size is None or pad.get('padding_mode', 'constant') != 'constant':
        raise ValueError(
            f'the padding of its test pipeline, {dict(pad)}, depends on the image, '
            f'which {_ADVICE} Or pad to one `size`.'
        )
    value = pad.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    values = [*value] if isinstance(value, (list, tuple)) else [value] * channels
    return size, [float(x) for x in (values[::-1] if swap else values)]


def padded(pixels: int, divisor: int) -> int:
    """Round a side up.

    Args:
        pixels (int): The side.
        divisor (int): What it becomes a multiple of.

    Returns:
        int: The multiple.
    """
    return -(-pixels // divisor) * divisor


def _padded_size(
    pad: Mapping, sides: Sequence[int], keep_ratio: bool
) -> list[int] | None:
    """Height and width, where they are those of every image."""
    size = pad.get('size')
    if size:
        return [size, size] if isinstance(size, int) else [*size][::-1]
    square = bool(pad.get('pad_to_square'))
    if not square and not pad.get('size_divisor'):
        return None
    # The longer side alone is known, and only between equal limits.
    if keep_ratio and not (square and sides[0] == sides[1]):
        return None
    found = [max(sides)] * 2 if square else sides
    return [padded(side, pad.get('size_divisor') or 1) for side in found]


def channel_order(cfg: Config, channels: int, swap: bool) -> str:
    """Find out in which order the channels of a normalised image are.

    Args:
        cfg (Config): The config.
        channels (int): Their number.
        swap (bool): Whether the data preprocessor turns their order.

    Returns:
        str: ``'RGB'``, ``'BGR'``, ``'grey'``, or that of the data set.
    """
    if channels == 1:
        return 'grey'
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    found = [*walk_wrappers(loader.get('dataset'))]
    order = AS_LOADED
    if found and type_name(found[-1]) in _RGB_ARRAYS:
        order = found[-1].get('channel_order', 'rgb').upper()
    for transform in test_pipeline(cfg):
        name = type_name(transform)
        if 'LoadImage' in name:
            order = 'BGR'
        elif name == 'NumpyToPIL' and transform.get('to_rgb'):
            # It turns what it is given: without a loader, images of OpenCV.
            order = _TURNED.get(order, 'RGB')
        elif name in ('PILToNumpy', 'ToNumpy') and transform.get('to_bgr'):
            order = _TURNED.get(order, 'BGR')
    return _TURNED.get(order, AS_LOADED) if swap else order
