# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a GPU runs in a step, by its own records."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .measure import Case, Options

# Copies and fills are no kernels, though they take their turn.
_TRANSFERS = ('Memcpy', 'Memset')


def count_kernels(case: Case, options: Options) -> dict:
    """Count the kernels of a case's sides, and time them.

    Args:
        case (Case): Sides on the GPU.
        options (Options): Device and rounds.

    Returns:
        dict: ``name``, the settings and ``sides``, each with ``name``, ``kernels``,
        ``transfers``, ``busy`` (seconds that the GPU works in a step) and ``seconds``
        (those that the step takes, one after another).
    """
    on_device = [ProfilerActivity.CUDA] * (options.device == 'cuda')
    results = []
    for side in case.build():
        for _ in range(3):
            side.run()
        with profile(activities=[ProfilerActivity.CPU, *on_device]) as record:
            side.run()
            _wait(options)
        work = sum_events(record.events() or [])
        start = time.perf_counter()
        for _ in range(options.rounds):
            side.run()
        _wait(options)
        seconds = (time.perf_counter() - start) / options.rounds
        results.append(dict(name=side.name, **work, seconds=seconds))
    return dict(name=case.name, **case.settings, sides=results)


def sum_events(events: Iterable[Any]) -> dict[str, float]:
    """Sum up what a profiler has seen on a device.

    Args:
        events (Iterable): Its events, those of the host among them.

    Returns:
        dict[str, float]: ``kernels`` and ``transfers``, their numbers, and ``busy``,
        the seconds of both.
    """
    found = [event for event in events if event.device_type == DeviceType.CUDA]
    transfers = sum(event.name.startswith(_TRANSFERS) for event in found)
    busy = sum(event.time_range.elapsed_us() for event in found) / 1e6
    return dict(kernels=len(found) - transfers, transfers=transfers, busy=busy)


def _wait(options: Options) -> None:
    if options.device == 'cuda':
        torch.cuda.synchronize()
