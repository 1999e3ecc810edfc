# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a work dir says about its training."""

from __future__ import annotations

import glob
import json
import math
import os.path as osp
import re
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.compat.config_literals import find_risk
from mmfakd.compat.json_text import read_json
from mmfakd.engine.config_dump import trained_name
from mmfakd.engine.work_dir import checkpoint_of_another, training_folders
from mmfakd.model_zoo.resolve import model_files

from .run import Run

# Of the first step's report, and of what is learned.
_OF_DISTILLATION = ('first_step/', 'learning/')
# What is added to rows of training: the iterations that their means stand for.
_COUNT = 'mmfakd/iterations'


@dataclass
class _Log:
    """The rows of one start of a training, and the config it was started with."""

    folder: str
    config: Config
    risk: str | None
    rows: list[dict]

    @cached_property
    def steps(self) -> list[int]:
        """Iterations after which it has a row of training."""
        return [row['step'] for row in self.rows if _is_training(row)]

    @property
    def span(self) -> int:
        """Iterations that its first row stands for, where no row before it tells."""
        gaps = (later - step for step, later in zip(self.steps, self.steps[1:]))
        # An epoch may be shorter than the interval.
        span = min(self.interval, max(gaps, default=self.interval))
        return self.steps[0] if self.starts_anew else min(self.steps[0], span)

    @property
    def starts_anew(self) -> bool:
        """Whether it begins with the first iteration of a training."""
        return not self.config.get('resume') and self.steps[0] <= self.interval

    @property
    def source(self) -> str | None:
        """The checkpoint of another training that it goes on from, if it does."""
        if not isinstance(self.config.get('work_dir'), str):
            return None
        path = checkpoint_of_another(self.config)
        if path is None:
            return None
        folders = training_folders(self.config)
        own = any(_may_be_one(osp.dirname(path), folder) for folder in folders)
        return None if own else path

    def begins_another(self, first: _Log) -> bool:
        """Whether it begins another training than the one that `first` began."""
        # Started twice from one checkpoint it is the same one.
        return self.starts_anew or self.source not in (None, first.source)

    @property
    def interval(self) -> int:
        """Iterations between two rows, at most."""
        hooks = self.config.get('default_hooks') or {}
        return (hooks.get('logger') or {}).get('interval', 10)


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
    """
    work_dir = str(work_dir)
    paths = glob.glob(osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))
    # Their folders are named after the time of the start.
    logs = [log for log in map(_read_log, sorted(paths)) if log is not None]
    if not logs:
        raise FileNotFoundError(
            f'{work_dir}: no log of a training (*/vis_data/scalars.json with training '
            'iterations); expected the work dir of an MMEngine training that has '
            'reached its first log entry.'
        )
    first, starts, training, validations = _stitch(logs)
    config = logs[-1].config
    loop = config.get('train_cfg') or {}
    unit = 'iteration' if 'max_iters' in loop else 'epoch'
    remarks = []
    if starts > 1:
        remarks.append(f'its work dir holds {starts} trainings, the newest counts')
    begin = training[0]['step'] - training[0][_COUNT]
    if begin > 0:
        remarks.append(
            f'its logs begin after iteration {begin}, the ones before are missing'
        )
    scores: dict[str, dict[int, float]] = {}
    for before, row in validations:
        position = _position(unit, before, row, loop)
        for key, value in row.items():
            is_score = isinstance(value, (int, float)) and math.isfinite(value)
            if is_score and key not in ('step', 'time', 'data_time'):
                scores.setdefault(key, {})[position] = value
    times: Any = _times(training)
    return Run(
        work_dir=work_dir,
        name=_config_name(work_dir),
        seed=_seed(first),
        config=config,
        unit=unit,
        length=loop.get('max_iters') or loop.get('max_epochs'),
        scores=scores,
        losses=_losses(unit, training),
        remarks=remarks,
        risk=logs[-1].risk,
        **times,
    )


def _stitch(logs: list[_Log]) -> tuple[_Log, int, list[dict], list[tuple[dict, dict]]]:
    """The newest training of several, without what a resumption did again.

    Returns its first log, the number of trainings, rows of training, and rows of
    validation, each with the row of training before it.
    """
    first, starts = logs[0], 1
    training: list[dict] = []
    validations: list[tuple[dict, dict]] = []
    for log in logs:
        if log is not first and log.begins_another(first):
            training, validations, first = [], [], log
            starts += 1
        for row in log.rows:
            if not _is_training(row):
                validations.append((training[-1] if training else {}, row))
                continue
            if training and not _precedes(training[-1], row):
                # Resumed from a checkpoint before the end of what was logged.
                training = [old for old in training if _precedes(old, row)]
                validations = [
                    (before, old)
                    for before, old in validations
                    if not before or _precedes(before, row)
                ]
            row[_COUNT] = _iterations(training[-1] if training else None, row, log)
            training.append(row)
    return first, starts, training, validations


def _precedes(old: dict, row: dict) -> bool:
    """Whether a row of training is of an earlier place than another one.

    ``ResumeHook`` counts iterations anew where epochs have another length.
    """
    by_epoch = all(isinstance(one.get('epoch'), int) for one in (old, row))
    keys = ('epoch', 'step') if by_epoch else ('step',)
    return [old[key] for key in keys] < [row[key] for key in keys]


def _iterations(before: dict | None, row: dict, log: _Log) -> int:
    """How many iterations a row of a log stands for, with the row before it."""
    since = row['step'] - before['step'] if before else 0
    if row['step'] != log.steps[0] or 0 < since < 2 * log.span:
        return since
    # There is none before, some are missing, or iterations are counted anew.
    return log.span


def _read_log(path: str) -> _Log | None:
    with open(path) as file:
        lines = [line for line in file if line.strip()]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = read_json(line)
            if not isinstance(row, dict) or not isinstance(row.get('step'), int):
                raise ValueError(
                    f'{path}: line {number} is no row of a log: {line.strip()[:60]!r}. '
                    'Expected an object with a "step".'
                )
            # What is seen of the distillation is no validation.
            if not any(key.startswith(_OF_DISTILLATION) for key in row):
                rows.append(_without_prefix(row))
        except json.JSONDecodeError as error:
            # A killed process leaves half a line at the end.
            if number < len(lines):
                raise ValueError(f'{path}: line {number} is no JSON: {error}') from None
    if not any(map(_is_training, rows)):
        return None
    folder = osp.dirname(osp.dirname(path))
    with open(osp.join(folder, 'vis_data', 'config.py')) as file:
        text = file.read()
    config, risk = read_config_text(text), find_risk(text)
    files = model_files(config.get('model'))
    if risk is None and files:
        risk = f'its model is one of a file, cfg_path={files[0]!r}'
    return _Log(folder, config, risk, rows)


def _may_be_one(folder: str, other: str) -> bool:
    """Whether two folders may be the same, of which one begins nobody knows where."""
    if osp.isabs(folder) == osp.isabs(other):
        return False
    relative, absolute = sorted((folder, other), key=osp.isabs)
    end = [part for part in Path(osp.normpath(relative)).parts if part != '..']
    return not end or list(Path(osp.normpath(absolute)).parts[-len(end) :]) == end


def _without_prefix(row: dict) -> dict:
    """Undo the log processor's ``log_with_hierarchy``."""
    return {re.sub('^(train|val)/', '', key): value for key, value in row.items()}


def _is_training(row: dict) -> bool:
    # Only what is logged after a training iteration counts iterations.
    return 'iter' in row


def _position(unit: str, before: dict, row: dict, loop: dict) -> int:
    """Epoch or iteration of a validation; `before` is the training row before it."""
    if unit == 'epoch':
        return before.get('epoch', row['step'])
    if row['step'] > 0 or not before:
        return row['step']
    # The logger counts epochs unless told otherwise, and iteration loops have none.
    interval = loop.get('val_interval', 1000)
    return min(-(-before['step'] // interval) * interval, loop['max_iters'])


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
    own = [v for k, v in row.items() if k.startswith('student.') and 'loss' in k]
    if own:
        return sum(own)
    distilled = any(key.startswith('distill.') for key in row)
    return math.nan if distilled else row.get('loss', math.nan)


def _times(training: list[dict]) -> dict[str, float | None]:
    if not all('time' in row for row in training):
        return dict(seconds=None, step_seconds=None, data_share=None)
    # Times are means over a window, in general of the iterations since the last row.
    seconds = sum(row['time'] * row[_COUNT] for row in training)
    waited = sum(row.get('data_time', 0.0) * row[_COUNT] for row in training)
    return dict(
        seconds=seconds,
        step_seconds=statistics.median(row['time'] for row in training),
        data_share=waited / seconds if seconds else None,
    )


def _seed(log: _Log) -> int | None:
    seed = (log.config.get('randomness') or {}).get('seed')
    if seed is not None:
        return seed
    # Drawn by the runner, which writes it down among the environment.
    for path in sorted(glob.glob(osp.join(glob.escape(log.folder), '*.log'))):
        with open(path) as file:
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
