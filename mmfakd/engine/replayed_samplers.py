# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Samplers that begin an epoch where the one before ended."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from mmfakd.datasets.wrappers import walk_loaders

from .data_seed import samplers_of


def replay_epochs(loop: BaseLoop) -> None:
    """Let samplers stand where they stood after the epochs that are done.

    Of each data set mmdet's ``CustomSampleSizeSampler`` takes some images an epoch, and
    those that follow in the next one. Iteration based loops draw all from the first.

    Args:
        loop (BaseLoop): The training loop, its epoch that of the checkpoint; samplers
            have their seeds.
    """
    epochs = loop.epoch if isinstance(loop, EpochBasedTrainLoop) else 0
    for loader in walk_loaders(loop.dataloader):
        for sampler in samplers_of(loader):
            if any(map(_is_stock, type(sampler).__mro__)):
                _replay(sampler, epochs)


def _is_stock(kind: type) -> bool:
    library = kind.__module__.partition('.')[0]
    return (library, kind.__name__) == ('mmdet', 'CustomSampleSizeSampler')


def _replay(sampler: Any, epochs: int) -> None:
    """Begin anew, with the present seed, and draw what was drawn."""
    cycles = sampler.dataset_cycle_iter
    for i, cycle in enumerate(cycles):
        if cycle is not None:
            generator = torch.Generator().manual_seed(sampler.seed)
            cycles[i] = type(cycle)(sampler.dataset_index[i], generator=generator)
    for _ in range(epochs):
        iter(sampler)
