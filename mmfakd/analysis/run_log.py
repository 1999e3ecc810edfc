# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The log of one start of a training."""

from __future__ import annotations

import os.path as osp
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.compat.config_literals import find_risk
from mmfakd.engine.work_dir import checkpoint_of_another, training_folders
from mmfakd.model_zoo.resolve import model_files

from .log_config import check_log_config, logger_of
from .log_rows import epoch_in, is_training, read_rows
from .validation_steps import with_validation_steps


@dataclass
class RunLog:
    """The rows of one start of a training, and the config it was started with.

    Attributes:
        folder (str): The folder of the log, named after the time of the start.
        config (Config): The config.
        risk (str, optional): What building something from the config could run.
        rows (list[dict]): What is logged of training and validation.
        looks (list[dict]): What ``LearningPicturesHook`` has logged.
        shift (int): What is added to its iterations where those of a training go on
            from others that were counted in another way.
    """

    folder: str
    config: Config
    risk: str | None
    rows: list[dict]
    looks: list[dict]
    shift: int = 0

    @cached_property
    def training(self) -> list[dict]:
        """Rows of training."""
        return [row for row in self.rows if is_training(row)]

    @cached_property
    def steps(self) -> list[int]:
        """Iterations after which it has a row of training."""
        return [row['step'] for row in self.training]

    @cached_property
    def epoch_length(self) -> tuple[int, int]:
        """How many iterations an epoch has, at least and at most, as its rows tell."""
        least, most = 1, sys.maxsize
        for row in self.training:
            epoch = epoch_in(row)
            if epoch > 0:
                least = max(least, -(-row['step'] // epoch))
            if epoch > 1:
                most = min(most, (row['step'] - 1) // (epoch - 1))
        return least, most

    def counts_as(self, other: RunLog) -> bool:
        """Tell whether its epochs may have as many iterations as those of another.

        ``ResumeHook`` counts iterations anew where they have not.

        Args:
            other (RunLog): The other one.

        Returns:
            bool: Whether iterations of both are counted in the same way.
        """
        (least, most), (lower, upper) = self.epoch_length, other.epoch_length
        return max(least, lower) <= min(most, upper)

    def share_of_epoch(self, epoch: int, step: int) -> float:
        """Tell how much of an epoch is over after an iteration.

        Args:
            epoch (int): The epoch.
            step (int): The iteration.

        Returns:
            float: The share, 0 at the beginning. Where rows tell little, less.
        """
        least, most = self.epoch_length
        return max(0.0, step - (epoch - 1) * most) / least

    def epoch_of(self, step: int) -> int:
        """Find the epoch of an iteration by the rows around it.

        Args:
            step (int): The iteration.

        Returns:
            int: The epoch; 0 where the loop has none.
        """
        before, after = None, None
        for row in self.training:
            if row['step'] >= step:
                after = row
                break
            before = row
        # A row is at most one interval behind the beginning of its epoch.
        near = before is None or (after and step > after['step'] - self.interval)
        return epoch_in((after if near else before) or {})

    @property
    def span(self) -> int:
        """Iterations that its first row stands for, where no row before it tells."""
        first = self.steps[0]
        if self.starts_anew:
            return first
        gaps = (later - step for step, later in zip(self.steps, self.steps[1:]))
        # An epoch may be shorter than the interval, and there may be one row alone.
        epoch = epoch_in(self.training[0]) or 1
        within = max(1, first - (epoch - 1) * self.epoch_length[0])
        return min(first, within, self.interval, max(gaps, default=within))

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

    def begins_another(self, first: RunLog) -> bool:
        """Tell whether it begins another training than one that a log began.

        Args:
            first (RunLog): The log that began it.

        Returns:
            bool: Whether it does.
        """
        # Started twice from one checkpoint it is the same one.
        return self.starts_anew or self.source not in (None, first.source)

    @property
    def interval(self) -> int:
        """Iterations between two rows, at most."""
        return logger_of(self.config).get('interval') or 10


def read_log(path: str) -> RunLog | None:
    """Read a log, and the config beside it.

    Args:
        path (str): Its ``scalars.json``.

    Returns:
        RunLog | None: The log; None if it has no row of training.

    Raises:
        ValueError: If a line but the last is no row of a log, or the config has other
            values than trainings have; file and line or key are named.
    """
    rows, looks = read_rows(path)
    if not any(map(is_training, rows)):
        return None
    folder = osp.dirname(osp.dirname(path))
    source = osp.join(folder, 'vis_data', 'config.py')
    try:
        text = Path(source).read_text('utf-8')
        config, risk = read_config_text(text), find_risk(text)
        check_log_config(config)
        rows = with_validation_steps(rows, config)
        files = model_files(config.get('model'))
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error
    if risk is None and files:
        risk = f'its model is one of a file, cfg_path={files[0]!r}'
    return RunLog(folder, config, risk, rows, looks)


def _may_be_one(folder: str, other: str) -> bool:
    """Whether two folders may be the same, of which one begins nobody knows where."""
    if osp.isabs(folder) == osp.isabs(other):
        return False
    relative, absolute = sorted((folder, other), key=osp.isabs)
    end = [part for part in Path(osp.normpath(relative)).parts if part != '..']
    return not end or list(Path(osp.normpath(absolute)).parts[-len(end) :]) == end
