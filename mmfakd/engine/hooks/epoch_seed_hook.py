# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Random numbers that depend on the epoch, not on what ran before."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmfakd.datasets.wrappers import image_caches
from mmfakd.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed the process and its data workers anew at every epoch.

    MMEngine does not restore random states on resume, and seeds data workers alike
    at every epoch, so that without persistent workers each epoch repeats the same
    augmentation. Here the seed of an epoch follows from (seed, epoch, rank, worker):
    augmentations differ between epochs, and a resumed run continues as the
    uninterrupted one would have, with the same losses.

    Persistent workers are started anew at each epoch, as a running worker cannot be
    seeded. Images that transforms keep for later ones (mmdet's ``CachedMosaic``) are
    dropped then: new workers have none, and a resumed run has none either.

    It serves epoch based training; in an iteration based loop it warns and does
    nothing.
    """

    # After DistSamplerSeedHook (NORMAL) and before anything that draws numbers.
    priority = 'BELOW_NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Warn if the loop has no epochs.

        Args:
            runner (Runner): The runner.
        """
        self._active = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if not self._active:
            warnings.warn(
                f'EpochSeedHook needs an EpochBasedTrainLoop, got '
                f'{type(runner.train_loop).__name__}: it does nothing.',
                stacklevel=2,
            )
        self._init_worker = runner.train_dataloader.worker_init_fn

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, and the workers that the epoch will start.

        Args:
            runner (Runner): The runner.
        """
        if not self._active:
            return
        entropy = (runner.seed or 0, runner.epoch, get_rank())
        seed_generators(entropy)
        loader = runner.train_dataloader
        for images in image_caches(loader):
            images.clear()
        if loader.num_workers > 0:
            # Drops the running workers of a persistent loader.
            loader._iterator = None
            loader.worker_init_fn = partial(
                _seed_worker, entropy=entropy, before=self._init_worker
            )


def seed_generators(entropy: tuple[int, ...]) -> None:
    """Seed ``random``, numpy and torch from a tuple of numbers.

    Args:
        entropy (tuple[int, ...]): Any numbers, each not negative.
    """
    states = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(states[0]))
    np.random.seed(int(states[1]))
    torch.manual_seed(int(states[2]))


def _seed_worker(
    worker_id: int, entropy: tuple[int, ...], before: Callable[[int], None] | None
) -> None:
    # What the loader would have done: MMEngine's own, or one of the user.
    if before is not None:
        before(worker_id)
    seed_generators((*entropy, worker_id + 1))
