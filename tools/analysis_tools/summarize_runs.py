# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Read work dirs and put methods side by side."""

from __future__ import annotations

import argparse
import glob
import json
import math
import os.path as osp
import statistics
from dataclasses import dataclass

import mmfakd  # noqa: F401 isort: skip

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope


@dataclass
class Run:
    """What one work dir says.

    Attributes:
        last: Accuracy after the last epoch, in percent.
        best: Best accuracy of all epochs, in percent.
        seconds: Training time, in seconds, the sum of the logged iteration times.
        parameters: Parameters of the trained model that stays (the student's).
        added: Parameters that the distillation adds while training.
    """

    last: float
    best: float
    seconds: float
    parameters: int
    added: int


def read_run(work_dir: str, metric: str = 'accuracy/top1') -> Run:
    """Read the newest run of a work dir.

    Args:
        work_dir (str): The work dir of one training.
        metric (str): The score to read.

    Returns:
        Run: Its figures.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If the log holds no such score.
    """
    logs = sorted(glob.glob(osp.join(work_dir, '*', 'vis_data', 'scalars.json')))
    configs = glob.glob(osp.join(work_dir, '*.py'))
    if not logs or not configs:
        raise FileNotFoundError(
            f'{work_dir}: no */vis_data/scalars.json and *.py; expected the work dir '
            'of a training.'
        )
    with open(logs[-1]) as file:
        rows = [json.loads(line) for line in file if line.strip()]
    scores = [row[metric] for row in rows if metric in row]
    if not scores:
        raise ValueError(f'{logs[-1]}: no {metric!r} in it; was training validated?')
    seconds = 0.0
    previous = 0
    for row in rows:
        if 'loss' in row:
            # `time` is the mean of the last window, here of the iterations since the
            # row before.
            seconds += row['time'] * (row['step'] - previous)
            previous = row['step']
    cfg = Config.fromfile(max(configs, key=osp.getmtime))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = MODELS.build(cfg.model)
    total = sum(p.numel() for p in model.parameters())
    student = getattr(model, 'architecture', model)
    kept = sum(p.numel() for p in student.parameters())
    return Run(scores[-1], max(scores), seconds, kept, total - kept)


def format_table(
    runs: dict[str, list[Run]], baseline: str, teacher: Run | None = None
) -> str:
    """Format a comparison as a Markdown table.

    Args:
        runs (dict[str, list[Run]]): Method -> its runs, one for each seed, in the same
            order for all methods.
        baseline (str): The method that the others are compared with, seed by seed.
        teacher (Run, optional): The teacher's run, a line of its own.

    Returns:
        str: The table. Spread is the sample standard deviation over the seeds; a
        paired difference is followed by its standard error.
    """
    rows = [
        '| method | accuracy | spread | minus student, paired | parameters '
        '| added in training | train time |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    if teacher is not None:
        rows.append(
            f'| teacher | {teacher.last:.2f} | | | {teacher.parameters:,} | '
            f'| {teacher.seconds:.0f} s |'
        )
    for name, method in runs.items():
        values = [run.last for run in method]
        spread = f'{statistics.stdev(values):.2f}' if len(values) > 1 else ''
        difference = ''
        if name != baseline:
            pairs = [run.last - base.last for run, base in zip(method, runs[baseline])]
            difference = f'{statistics.mean(pairs):+.2f}'
            if len(pairs) > 1:
                error = statistics.stdev(pairs) / math.sqrt(len(pairs))
                difference += f' ± {error:.2f}'
        seconds = statistics.mean(run.seconds for run in method)
        rows.append(
            f'| {name} | {statistics.mean(values):.2f} | {spread} | {difference} '
            f'| {method[0].parameters:,} | {method[0].added:,} | {seconds:.0f} s |'
        )
    return '\n'.join(rows)


def main() -> None:
    """Print a table of work dirs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'runs',
        nargs='+',
        help='NAME=DIR[,DIR...]: a method and its work dirs, one for each seed; the '
        'first method is the baseline',
    )
    args = parser.parse_args()
    runs = {}
    for item in args.runs:
        name, _, folders = item.partition('=')
        if not folders:
            parser.error(f'{item!r}: expected NAME=DIR[,DIR...].')
        runs[name] = [read_run(folder) for folder in folders.split(',')]
    print(format_table(runs, baseline=next(iter(runs))))


if __name__ == '__main__':
    main()
