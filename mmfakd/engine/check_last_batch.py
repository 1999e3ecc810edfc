# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What cannot learn from a last batch of one image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmrazor.models.losses import DistanceWiseRKD
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, DataLoader

from mmfakd.datasets.wrappers import length_of
from mmfakd.models.connectors.review_level import ReviewLevel


def check_last_batch(loader: Any, distiller: nn.Module, iterations: float) -> str:
    """Refuse a distiller that fails in the last batch of an epoch, of one image.

    Args:
        loader (DataLoader): A loader of training batches.
        distiller (nn.Module): The distiller.
        iterations (float): Batches that the training takes.

    Returns:
        str: What is doubtful, as it depends on the size of maps, which only the first
        step tells; else ''.

    Raises:
        ValueError: If some part of it needs two images.
    """
    images = _last_of_one(loader, iterations)
    if not images:
        return ''
    told = (
        f'The last batch of every epoch has one image ({images} images, batch_size='
        f'{loader.batch_size})'
    )
    cure = 'Give train_dataloader.drop_last=True, or another batch_size.'
    if needs := next(_need_two(distiller), ''):
        raise ValueError(f'{told}, but {needs}. {cure}')
    norms = [name for name, part in distiller.named_modules() if _is_norm(part)]
    if not norms:
        return ''
    return (
        f'{told}: the batch norms of the distiller ({len(norms)}, such as {norms[0]}) '
        f'normalise it by itself, and fail if its map has one pixel. {cure}'
    )


def _last_of_one(loader: Any, iterations: float) -> int:
    """The number of images where one remains for the last batch; else 0."""
    batches = getattr(loader, 'batch_sampler', None)
    # Other samplers of batches, and endless ones, have no such last batch.
    if (
        not isinstance(loader, DataLoader)
        or type(batches) is not BatchSampler
        or isinstance(loader.sampler, InfiniteSampler)
        or batches.drop_last
        or batches.batch_size == 1
    ):
        return 0
    # That of a stream yields no places, and has no length.
    images = length_of(loader.sampler)
    if images is None or iterations < len(loader):
        return 0
    return images if images % batches.batch_size == 1 else 0


def _need_two(distiller: nn.Module) -> Iterator[str]:
    for name, part in distiller.named_modules():
        if isinstance(part, DistanceWiseRKD):
            yield (
                f'{name} (DistanceWiseRKD) compares images with each other: of one its '
                'loss is not a number'
            )
        one_pixel = isinstance(part, ReviewLevel) and part.size == (1, 1)
        if one_pixel and any(map(_is_norm, part.modules())):
            yield f'the batch norm of {name}, which predicts one pixel, needs two'


def _is_norm(part: nn.Module) -> bool:
    # Those of all processes together have several images.
    return isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm)
