# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The iterations of validations, where a log does not tell them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice

from mmengine.config import Config
from mmengine.runner.utils import calc_dynamic_intervals

from .log_config import logger_of
from .log_rows import is_training


def with_validation_steps(rows: list[dict], config: Config) -> list[dict]:
    """Give validations of an iteration loop the iterations that they are of.

    MMEngine's logger counts epochs unless told otherwise, and in such loops that is 0
    for all. Which iterations they are of follows from the loop's schedule and the rows
    of training around them.

    Args:
        rows (list[dict]): The rows of one start, in their order.
        config (Config): The config of that start, checked.

    Returns:
        list[dict]: The rows, as they are where they tell it, and in loops of epochs.

    Raises:
        ValueError: If the config has a schedule that no loop has.
    """
    loop = config.get('train_cfg') or {}
    steps = [row['step'] for row in rows if not is_training(row)]
    by_epoch = logger_of(config).get('log_metric_by_epoch', True)
    if loop.get('max_iters') is None or not by_epoch or not steps or any(steps):
        return rows
    placed: list[dict] = []
    waiting: list[dict] = []
    since = 0
    for row in rows:
        if not is_training(row):
            waiting.append(row)
            continue
        # Where a resumed training began nobody knows, but its first row is known.
        pieces = _schedule(loop, since, row['step'])
        latest = islice(chain.from_iterable(map(reversed, pieces[::-1])), len(waiting))
        places = [*latest][::-1]
        # There may be one before the first iteration.
        places[:0] = [since] * (len(waiting) - len(places))
        placed += [*_at(places, waiting), row]
        waiting, since = [], row['step']
    last = int(loop['max_iters'])
    pieces = _schedule(loop, since, last + 1)
    places = [*islice(chain.from_iterable(pieces), len(waiting))]
    places += [last] * (len(waiting) - len(places))
    return placed + _at(places, waiting)


def _at(places: Sequence[int], rows: Sequence[dict]) -> list[dict]:
    return [{**row, 'step': place} for place, row in zip(places, rows)]


def _schedule(loop: Mapping, begin: int, end: int) -> list[range]:
    """Iterations after which a loop validates, from `begin` and before `end`."""
    last = int(loop['max_iters'])
    pieces = []
    try:
        first = max(begin, 1, int(loop.get('val_begin', 1)))
        milestones, intervals = calc_dynamic_intervals(
            loop.get('val_interval', 1000), loop.get('dynamic_intervals')
        )
        ends = [*milestones[1:], last + 1]
        if min(intervals) <= 0:
            raise ValueError
        for since, until, interval in zip(milestones, ends, map(int, intervals)):
            # The loop chooses the interval one iteration ahead.
            low, high = max(first, since - 1), min(end, until - 1, last)
            pieces.append(range(-(-low // interval) * interval, high, interval))
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError):
        keys = ('val_begin', 'val_interval', 'dynamic_intervals')
        given = {key: loop[key] for key in keys if key in loop}
        raise ValueError(
            f'train_cfg has {given}, by which no iteration of a validation is found; '
            'expected whole numbers, and a list of tuples of two of them.'
        ) from None
    if first <= last < end:
        pieces.append(range(last, last + 1))
    return pieces
