# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Time the CPU steps of R56-R20 in this checkout against those of another one.

    git worktree add ../before v0.1.0
    python .dev_scripts/compare_checkouts.py ../before --rounds 21

Each checkout has a process of its own. They take turns, step by step, every second
round backwards; what is printed are medians and quartiles of the ratios of a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from mmfakd.messages import markdown

REPOSITORY = Path(__file__).resolve().parents[1]
# Runs in either checkout: builds all sides, then runs the one whose number it reads.
WORKER = """
import inspect, sys, time
import torch
from mmfakd.analysis.benchmark.launches import step_sides
from mmfakd.analysis.benchmark.measure import Options
torch.set_num_threads({threads})
torch.manual_seed(0)
# Where the optimizer is told on which path it is.
path = ['CPU'] * ('path' in inspect.signature(step_sides).parameters)
sides = step_sides(Options(), {batch}, 32, *path)
for side in sides:
    side.run()
    side.run()
print('sides:' + '|'.join(side.name for side in sides), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    sides[int(line)].run()
    print('took:', time.perf_counter() - start, flush=True)
"""


def start(checkout: Path, threads: int, batch: int) -> subprocess.Popen[str]:
    """Start the process of a checkout.

    Args:
        checkout (Path): Its folder.
        threads (int): Threads of the CPU.
        batch (int): Images of a batch.

    Returns:
        subprocess.Popen: The process.
    """
    code = WORKER.format(threads=threads, batch=batch)
    return subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=checkout,
        env={**os.environ, 'PYTHONPATH': str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def read(process: subprocess.Popen[str], key: str) -> str:
    """Read what a process answers; it may log before it does.

    Args:
        process (subprocess.Popen): The process.
        key (str): What the answer begins with.

    Returns:
        str: The answer.

    Raises:
        RuntimeError: If the process has ended.
    """
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(key):
            return line.removeprefix(key).strip()
    raise RuntimeError('the process of a checkout ended before it answered')


def time_step(process: subprocess.Popen[str], side: int) -> float:
    """Let a process run a step.

    Args:
        process (subprocess.Popen): The process.
        side (int): Number of the step.

    Returns:
        float: Seconds.
    """
    assert process.stdin is not None
    print(side, file=process.stdin, flush=True)
    return float(read(process, 'took:'))


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('other', type=Path)
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--batch-size', type=int, default=64)
    args = parser.parse_args()
    checkouts = REPOSITORY, args.other.resolve()
    processes = [start(c, args.threads, args.batch_size) for c in checkouts]
    names, *_ = [read(process, 'sides:').split('|') for process in processes]
    rows = [['step', 'here over the other checkout', 'ms here']]
    for side, name in enumerate(names):
        times: list[list[float]] = [[], []]
        for index in range(args.rounds):
            turns = list(zip(processes, times))
            for process, taken in turns if index % 2 == 0 else reversed(turns):
                taken.append(time_step(process, side))
        ratios = [here / there for here, there in zip(*times)]
        low, middle, high = statistics.quantiles(ratios, n=4, method='inclusive')
        milliseconds = f'{1e3 * statistics.median(times[0]):.1f}'
        rows.append([name, f'{middle:.3f} ({low:.3f}-{high:.3f})', milliseconds])
    for process in processes:
        process.kill()
    print('\n'.join(markdown(rows)))


if __name__ == '__main__':
    main()
