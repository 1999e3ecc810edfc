# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Counted bytes against the time of operations that wait for memory."""

from __future__ import annotations

from functools import partial

import torch
from torch.utils.benchmark import Timer

from .measure import Case, Options, Side
from .operation_counter import OperationCounter


def traffic_sides(numbers: int) -> list[Side]:
    """Make sides of copies, sums and products, each a single operation on the CPU.

    Args:
        numbers (int): Numbers of a tensor; so many that no cache holds them.

    Returns:
        list[Side]: They write to memory that is there already.
    """
    x, y, out = (torch.randn(numbers) for _ in range(3))
    rows = x.view(-1, 1024)
    vector, sums = torch.randn(1024), torch.empty(len(rows))
    runs = {
        'copy': partial(out.copy_, x),
        'sum of two': partial(torch.add, x, y, out=out),
        'product in place': partial(out.mul_, 1.0),
        'sum over rows': partial(torch.sum, rows, 1, out=sums),
        'matrix and vector': partial(torch.mv, rows, vector, out=sums),
    }
    return [Side(name, run, 0) for name, run in runs.items()]


def measure_traffic(case: Case, options: Options) -> dict:
    """Measure how fast the counted bytes go.

    Args:
        case (Case): Sides of one operation each.
        options (Options): Threads and rounds.

    Returns:
        dict: ``name`` and ``sides``, each with ``name``, ``bytes``, ``seconds`` and
        ``bytes_per_second``.
    """
    results = []
    for side in case.build():
        with OperationCounter() as counter:
            side.run()
        moved = sum(o.read + o.written for o in counter.operations)
        timer = Timer('run()', globals={'run': side.run}, num_threads=options.threads)
        seconds = min(timer.timeit(1).median for _ in range(options.rounds))
        speed = moved / seconds
        results.append(
            dict(name=side.name, bytes=moved, seconds=seconds, bytes_per_second=speed)
        )
    return dict(name=case.name, sides=results)
