# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where the features of a padded batch are those of images."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

# Height and width of an image over those of its batch.
Share = tuple[float, float]
# What preprocessors write that pad a batch and keep `img_shape` true to it.
_PADDED = ('batch_input_shape', 'padding_size', 'img_padding_size')


def valid_shares(inputs: Tensor, data_samples: Any) -> list[Share]:
    """Find how much of a batch its images cover; each begins at the top left.

    Args:
        inputs (Tensor): The batch (N, C, H, W).
        data_samples (Sequence | Mapping, optional): Its N data samples, with the
            ``img_shape`` of their image; see :func:`samples_of`.

    Returns:
        list[tuple[float, float]]: Share of height and width for each image. Empty
        where there is no padding, or the samples say nothing about it.
    """
    height, width = inputs.shape[-2:]
    shares = []
    for shape in map(_image_shape, samples_of(data_samples)):
        if shape is None:
            return []
        shares.append((min(shape[0] / height, 1.0), min(shape[1] / width, 1.0)))
    return [] if all(share == (1, 1) for share in shares) else shares


def samples_of(data_samples: Any) -> list[Any]:
    """List what is known of each image of a batch.

    Args:
        data_samples (Sequence | Mapping, optional): Data samples, or a dict with all
            of a batch, in which ``img_metas`` has one for each image, as mmyolo's.

    Returns:
        list: A data sample or a dict for each image; empty where there are none.
    """
    if isinstance(data_samples, Mapping):
        data_samples = data_samples.get('img_metas')
    return list(data_samples) if isinstance(data_samples, (list, tuple)) else []


def check_shapes(data_samples: Any) -> bool:
    """Check that data samples tell which part of a batch is padding.

    Args:
        data_samples (Sequence | Mapping, optional): Data samples, see
            :func:`samples_of`.

    Returns:
        bool: Whether they do. Samples of classification may not, which is told.

    Raises:
        ValueError: If a dict stands in their place that does not.
    """
    samples = samples_of(data_samples)
    if samples and all(_image_shape(sample) is not None for sample in samples):
        return True
    cure = (
        "Let the pipeline's last transform keep it (`meta_keys` of PackDetInputs or "
        'PackInputs), and give the student a data preprocessor that hands it on, such '
        'as mmdet.DetDataPreprocessor; or leave out `ignore_padding`. Where all images '
        'are of one size, as behind mosaics, there is no padding to ignore.'
    )
    if isinstance(data_samples, Mapping):
        got = f'a dict with {sorted(map(str, data_samples))}'
        if samples and isinstance(samples[0], Mapping):
            got += f', whose `img_metas` have {sorted(map(str, samples[0]))}'
        raise ValueError(
            'ignore_padding=True needs the `img_shape` of every image, but the data '
            f'samples are {got}. {cure}'
        )
    if samples:
        print_log(
            f'ignore_padding=True has no effect: the data samples '
            f'({type(samples[0]).__name__}) have no `img_shape`. {cure}',
            logger='current',
            level=logging.WARNING,
        )
    return False


def padded_images(
    data_samples: Any, height: int, width: int
) -> Iterator[tuple[int, tuple[int, int], bool]]:
    """List the images of a batch that are smaller than it.

    Args:
        data_samples (Sequence | Mapping, optional): See :func:`samples_of`.
        height (int): Height of the batch.
        width (int): Its width.

    Yields:
        tuple[int, tuple[int, int], bool]: Number of the image; its height and width;
        whether it is certain that the rest is padding. Preprocessors that pad say so
        (mmdet's by ``batch_input_shape``, mmseg's by ``padding_size``); without that
        ``img_shape`` may be older than the last resizing.
    """
    for i, sample in enumerate(samples_of(data_samples)):
        shape = _image_shape(sample)
        info = sample if isinstance(sample, Mapping) else _metainfo(sample)
        if shape is not None and (shape[0] < height or shape[1] < width):
            yield i, (shape[0], shape[1]), any(key in info for key in _PADDED)


def _image_shape(sample: Any) -> Sequence[int] | None:
    """Height and width of an image, and maybe more, as far as its sample tells."""
    if isinstance(sample, Mapping):
        return sample.get('img_shape')
    return getattr(sample, 'img_shape', None)


def _metainfo(sample: Any) -> Mapping:
    return getattr(sample, 'metainfo', {})


def mask_padding(
    features: Sequence[Tensor], shares: Sequence[Share]
) -> tuple[list[Tensor], float]:
    """Set features to zero outside of the images.

    Python numbers alone decide, so nothing waits for a device.

    Args:
        features (Sequence[Tensor]): Features (N, C, H, W) of one device.
        shares (Sequence[tuple[float, float]]): See :func:`valid_shares`.

    Returns:
        tuple[list[Tensor], float]: The features with zeros, and the number of pixels
        of the first one over that of valid ones, by which a mean over all becomes one
        over these.
    """
    mask, scale = _valid_mask(features[0], shares)
    masks = {mask.shape[-2:]: mask}
    for feature in features[1:]:
        if feature.shape[-2:] not in masks:
            masks[feature.shape[-2:]], _ = _valid_mask(feature, shares)
    return [feature * masks[feature.shape[-2:]] for feature in features], scale


def _valid_mask(feature: Tensor, shares: Sequence[Share]) -> tuple[Tensor, float]:
    height, width = feature.shape[-2:]
    mask = feature.new_zeros(len(shares), 1, height, width)
    valid = 0
    for own, (rows, columns) in zip(mask, shares):
        # A pixel that an image covers in part is valid; the tolerance is for rounding.
        top, left = (math.ceil(a - 1e-6) for a in (rows * height, columns * width))
        own[:, :top, :left] = 1
        valid += top * left
    return mask, mask.numel() / valid
