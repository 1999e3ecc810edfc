# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where the features of a padded batch are those of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

# Height and width of an image over those of its batch.
Share = tuple[float, float]


def valid_shares(inputs: Tensor, data_samples: Sequence[Any] | None) -> list[Share]:
    """Find how much of a batch its images cover; each begins at the top left.

    Args:
        inputs (Tensor): The batch (N, C, H, W).
        data_samples (Sequence, optional): Its N data samples, with the ``img_shape``
            of their image.

    Returns:
        list[tuple[float, float]]: Share of height and width for each image. Empty
        where there is no padding, or the samples say nothing about it.
    """
    height, width = inputs.shape[-2:]
    shares = []
    for sample in data_samples or []:
        shape = getattr(sample, 'img_shape', None)
        if shape is None:
            return []
        shares.append((min(shape[0] / height, 1.0), min(shape[1] / width, 1.0)))
    return [] if all(share == (1, 1) for share in shares) else shares


def mask_padding(
    features: Sequence[Tensor], shares: Sequence[Share]
) -> tuple[list[Tensor], float]:
    """Set features to zero outside of the images.

    Python numbers alone decide, so nothing waits for a device.

    Args:
        features (Sequence[Tensor]): Features (N, C, H, W) of one size and device.
        shares (Sequence[tuple[float, float]]): See :func:`valid_shares`.

    Returns:
        tuple[list[Tensor], float]: The features with zeros, and the number of pixels
        over that of valid ones, by which a mean over all becomes one over these.
    """
    height, width = features[0].shape[-2:]
    mask = features[0].new_zeros(len(shares), 1, height, width)
    valid = 0
    for own, (rows, columns) in zip(mask, shares):
        # A pixel that an image covers in part is valid; the tolerance is for rounding.
        top, left = (math.ceil(a - 1e-6) for a in (rows * height, columns * width))
        own[:, :top, :left] = 1
        valid += top * left
    return [feature * mask for feature in features], mask.numel() / valid
