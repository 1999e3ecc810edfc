# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Learning rates that a training would never come to."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim import ConstantLR, LinearLR
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import IterBasedTrainLoop, Runner

from mmfakd.compat.running_loop import all_schedulers


def tell_rate(runner: Runner) -> list[str]:
    """Tell of warm-ups of the learning rate that last longer than the training.

    Those of stock configs count iterations, of which small data sets have few.

    Args:
        runner (Runner): The runner, with its schedulers built.

    Returns:
        list[str]: What is doubtful.
    """
    loop = runner.train_loop
    told = []
    for scheduler in all_schedulers(runner.param_schedulers):
        if scheduler.param_name != 'lr':
            continue
        # In a loop of iterations `check_counters` tells of those that count epochs.
        if scheduler.by_epoch and isinstance(loop, IterBasedTrainLoop):
            continue
        unit = 'epochs' if scheduler.by_epoch else 'iterations'
        key = 'max_epochs' if scheduler.by_epoch else 'max_iters'
        length = getattr(loop, key, None) or math.inf
        share = _share_at(scheduler, length - 1)
        if share < 1:
            end = f'ends after {scheduler.end} {unit}'
            end = 'has no `end`' if scheduler.end == INF else end
            told.append(
                f'The warm-up of the learning rate ({type(scheduler).__name__} of '
                f'`param_scheduler`) {end}, but the training has only {length} '
                f'{unit}: its rate comes to {share:.2g} times that of the optimizer at '
                'most. Give it a smaller `end`, or train for longer.'
            )
    return told


def _share_at(scheduler: Any, step: float) -> float:
    """What share of the rate a warm-up has come to at a step; 1 where it is over."""
    if step >= scheduler.end - 1 or step < scheduler.begin:
        return 1.0
    if isinstance(scheduler, ConstantLR):
        # One that begins later is a drop, one without an end a factor for good.
        warms_up = scheduler.begin == 0 and scheduler.end != INF
        return scheduler.factor if warms_up else 1.0
    if not isinstance(scheduler, LinearLR):
        return 1.0
    start, end = scheduler.start_factor, scheduler.end_factor
    # One that comes down is no warm-up.
    done = (step - scheduler.begin) / scheduler.total_iters
    return start + (end - start) * done if start < end else 1.0
