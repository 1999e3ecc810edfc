# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""When distillation begins and ends, against the length of the training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmfakd.compat.running_loop import first_stop
from mmfakd.datasets.wrappers import length_of
from mmfakd.engine.safety import loops_by_epoch
from mmfakd.model_zoo.type_names import type_name
from mmfakd.models.algorithms import FeatureDistill
from mmfakd.models.algorithms.check_counters import refuse_epoch_stops
from mmfakd.models.algorithms.check_stop import STOPPED_AT_ONCE, check_stop
from mmfakd.models.algorithms.first_step import NOTHING_DISTILLED
from mmfakd.models.distillers import Warmup


def check_schedule(
    cfg: Config, hooks: Sequence[Hook], model: FeatureDistill, loader: DataLoader
) -> list[str]:
    """Tell of a distillation that is over before it counts, as a training does.

    Args:
        cfg (Config): The config of the training.
        hooks (Sequence[Hook]): Its hooks.
        model (FeatureDistill): Its model.
        loader (DataLoader): That of the training.

    Returns:
        list[str]: What is to be said.

    Raises:
        ValueError: If nothing would teach for a part of the training, or a warm-up or
            a hook that stops the distillation counts epochs where there are none.
    """
    train_cfg = cfg.get('train_cfg') or {}
    in_epochs = loops_by_epoch(cfg)
    epochs = train_cfg.get('max_epochs', math.inf) if in_epochs else math.inf
    # MMEngine's loop where there is no class.
    kind = type_name({'type': IterBasedTrainLoop, **train_cfg})
    if not in_epochs:
        refuse_epoch_stops(hooks, kind)
    stop = first_stop(hooks)
    if setting := model._taught_by_nothing():
        check_stop(stop, epochs, setting)
    name, end = stop or ('', math.inf)
    if end <= 0:
        return [STOPPED_AT_ONCE]
    warmup = getattr(model.distiller, 'warmup', None)
    if not isinstance(warmup, Warmup):
        return []
    length = epochs
    if not in_epochs:
        length = train_cfg.get('max_iters', math.inf)
        warmup.refuse_epochs(kind, length)
    elif not warmup.by_epoch:
        batches = length_of(loader)
        if batches is None:
            # Of a stream the loop alone knows how long an epoch is.
            return []
        length, end = epochs * batches, end * batches
    text = warmup.too_long(length, name, end)
    if min(length, end) <= warmup.begin:
        text = f'{NOTHING_DISTILLED}: {text}'
    return [text] if text else []
