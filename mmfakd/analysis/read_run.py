# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a work dir says about its training."""

from __future__ import annotations

import glob
import math
import os.path as osp
import re
import statistics
from typing import Any

from mmfakd.engine.config_dump import trained_name

from .log_rows import is_number, is_of_student
from .run import Run
from .run_log import RunLog
from .stitched_logs import COUNT, StitchedLogs, read_logs


def read_run(work_dir: str) -> Run:
    """Read all logs of a work dir.

    A resumed training leaves several of them. Where they overlap the later one
    counts, so every iteration and every validation is there once; a training started
    anew, or from a checkpoint of another folder, makes the logs before it void.

    Args:
        work_dir (str): The work dir of a training with MMEngine's ``LocalVisBackend``,
            its default.

    Returns:
        Run: What they say.

    Raises:
        FileNotFoundError: If there is no log of a training.
        ValueError: If a log, or the config beside it, holds what no training writes.
    """
    work_dir = str(work_dir)
    logs = read_logs(work_dir)
    if not logs:
        raise FileNotFoundError(
            f'{work_dir}: no log of a training (*/vis_data/scalars.json with training '
            'iterations); expected the work dir of an MMEngine training that has '
            'reached its first log entry.'
        )
    stitched = StitchedLogs(logs)
    training = stitched.training
    config = logs[-1].config
    loop = config.get('train_cfg') or {}
    length = loop.get('max_iters')
    unit = 'epoch' if length is None else 'iteration'
    length = length or loop.get('max_epochs')
    remarks = []
    if stitched.starts > 1:
        remarks.append(
            f'its work dir holds {stitched.starts} trainings, the newest counts'
        )
    missing = training[0]['step'] - training[0][COUNT]
    if missing > 0:
        remarks.append(
            f'its logs begin after iteration {missing}, the ones before are missing'
        )
    scores: dict[str, dict[int, float]] = {}
    for before, row in stitched.validations:
        # Before the first epoch ends there may be no row of training.
        step = row['step']
        position = before.get('epoch', step) if unit == 'epoch' else step
        for key, value in row.items():
            is_score = key not in ('step', 'time', 'data_time')
            if is_score and is_number(value) and math.isfinite(value):
                scores.setdefault(key, {})[position] = value
    times: Any = _times(training)
    return Run(
        work_dir=work_dir,
        name=_config_name(work_dir),
        seed=_seed(stitched.first),
        config=config,
        begin=stitched.first.config,
        from_start=missing <= 0,
        unit=unit,
        length=None if length is None else int(length),
        scores=scores,
        losses=_losses(unit, training),
        remarks=remarks,
        risk=logs[-1].risk,
        **times,
    )


def _losses(unit: str, training: list[dict]) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for row in training:
        position = row.get('epoch') if unit == 'epoch' else row['step']
        loss = _own_loss(row)
        if position is not None and math.isfinite(loss):
            values.setdefault(position, []).append(loss)
    return {position: statistics.fmean(v) for position, v in values.items()}


def _own_loss(row: dict) -> float:
    """Loss of the student's own task: what a student alone has as well, or NaN."""
    own = [value for key, value in row.items() if is_of_student(key)]
    if own:
        return sum(own)
    distilled = any(key.startswith('distill.') for key in row)
    return math.nan if distilled else row.get('loss', math.nan)


def _times(training: list[dict]) -> dict[str, float | None]:
    if not all(math.isfinite(row.get('time', math.nan)) for row in training):
        return dict(seconds=None, step_seconds=None, data_share=None)
    # Times are means over a window, in general of the iterations since the last row.
    seconds = sum(row['time'] * row[COUNT] for row in training)
    waited = sum(row.get('data_time', 0.0) * row[COUNT] for row in training)
    return dict(
        seconds=seconds,
        step_seconds=statistics.median(row['time'] for row in training),
        data_share=waited / seconds if seconds and math.isfinite(waited) else None,
    )


def _seed(log: RunLog) -> int | None:
    seed = (log.config.get('randomness') or {}).get('seed')
    if seed is not None:
        return seed
    # Drawn by the runner, which writes it down among the environment.
    for path in sorted(glob.glob(osp.join(glob.escape(log.folder), '*.log'))):
        # Whatever else stands in it need not be text.
        with open(path, encoding='utf-8', errors='replace') as file:
            found = re.search(r'^\s+seed: (\d+)$', file.read(), re.MULTILINE)
        if found:
            return int(found[1])
    return None


def _config_name(work_dir: str) -> str:
    """Name of the dumped config; without a name of its own, that of the work dir."""
    configs = glob.glob(osp.join(glob.escape(work_dir), '*.py'))
    for path in sorted(configs, key=osp.getmtime, reverse=True):
        name = trained_name(path)
        if name is not None:
            return name
    folder = osp.basename(osp.abspath(work_dir))
    return re.sub(r'[_-]?seed[_-]?\d+$', '', folder) or folder
