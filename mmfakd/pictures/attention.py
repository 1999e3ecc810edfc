# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where on an image a feature is large."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_maps(feature: Tensor, size: Sequence[int]) -> Tensor:
    r"""Mean square over the channels, enlarged to the image.

    .. math::
        A(p) = \frac{1}{C} \sum_c F_c(p)^2

    Source: *Paying More Attention to Attention* (arXiv 1612.03928), whose activation
    based maps these are.

    Args:
        feature (Tensor): (N, C, H, W).
        size (Sequence[int]): Height and width of the image.

    Returns:
        Tensor: (N, height, width), of each image from 0 to 1; 0 where the feature is
        equally large everywhere.
    """
    maps = feature.float().square().mean(1, keepdim=True)
    maps = F.interpolate(maps, tuple(size), mode='bilinear', align_corners=False)
    return _stretched(maps.squeeze(1))


def grey_images(inputs: Tensor) -> Tensor:
    """Show images as a model gets them, whatever their mean, scale and channels.

    Args:
        inputs (Tensor): (N, C, H, W), normalised.

    Returns:
        Tensor: (N, H, W), of each image from 0 to 1.
    """
    return _stretched(inputs.float().mean(1))


def _stretched(maps: Tensor) -> Tensor:
    """Each from 0 to 1."""
    least = maps.amin((1, 2), keepdim=True)
    span = maps.amax((1, 2), keepdim=True) - least
    return (maps - least) / span.clamp_min(torch.finfo(span.dtype).tiny)
