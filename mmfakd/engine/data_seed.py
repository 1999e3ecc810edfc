# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Loaders that were built before the seed of a resumed training was known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.runner import BaseLoop, Runner

from mmfakd.datasets.wrappers import walk_loaders


def take_data_seed(runner: Runner, seed: int | None) -> None:
    """Let the training loaders draw as with another seed, before the first batch.

    MMEngine builds them with the seed of the config, or one that it draws, before it
    reads that of the checkpoint. They are not built anew: hooks hold on to them.
    Samplers and data workers begin with the first batch, in iteration based loops, too
    (:mod:`mmfakd.compat.late_batches`). A seed that a sampler has of its own stays.

    Args:
        runner (Runner): The runner, its seed still the one that loaders have.
        seed (int, optional): That of the checkpoint. None changes nothing.
    """
    if seed is None or not isinstance(runner._train_loop, BaseLoop):
        return
    # With `diff_rank_seed` each process adds its rank, and samplers draw their seed.
    differ = runner._randomness_cfg.get('diff_rank_seed', False)
    shift = get_rank() if differ else 0
    then, now = runner.seed - shift, seed
    if then == now:
        return
    loaders = list(walk_loaders(runner.train_dataloader))
    configs = list(walk_loaders(runner.cfg.get('train_dataloader')))
    for i, loader in enumerate(loaders):
        known = configs[i] if len(configs) == len(loaders) else {}
        for sampler in () if _has_own_seed(known) else samplers_of(loader):
            if sampler.seed == (_first_drawn(then) if differ else then):
                sampler.seed = _first_drawn(now) if differ else now
        init = getattr(loader, 'worker_init_fn', None)
        if isinstance(init, partial) and init.keywords.get('seed') == then + shift:
            loader.worker_init_fn = partial(init, seed=now + shift)


def _has_own_seed(config: Any) -> bool:
    """Whether the config of a loader gives its sampler a seed."""
    sampler = config.get('sampler') if isinstance(config, Mapping) else None
    return isinstance(sampler, Mapping) and sampler.get('seed') is not None


def samplers_of(loader: Any) -> Iterator[Any]:
    """Go through what shuffles: the sampler, that of batches, and what is in it.

    Args:
        loader (Any): The loader.

    Yields:
        Any: What has a seed. The sampler may come twice, as it may be in the other.
    """
    batches = getattr(loader, 'batch_sampler', None)
    inner = getattr(batches, 'sampler', None)
    for sampler in (getattr(loader, 'sampler', None), batches, inner):
        # A property shows that of another sampler.
        if 'seed' in getattr(sampler, '__dict__', ()):
            yield sampler


def _first_drawn(seed: int) -> int:
    """Draw what MMEngine's ``sync_random_seed`` draws first after a seed is set."""
    return int(np.random.RandomState(seed).randint(2**31))
