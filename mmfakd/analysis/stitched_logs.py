# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The logs of a work dir as those of one training."""

from __future__ import annotations

import glob
import os.path as osp
from collections.abc import Iterable

from .log_rows import epoch_in, is_training
from .run_log import RunLog, read_log

# What is added to rows of training: their log, and how many iterations they stand for.
_LOG, COUNT = 'mmfakd/log', 'mmfakd/iterations'


class StitchedLogs:
    """The newest training of several logs, without what a resumption did again.

    Attributes:
        first (RunLog): The log that began it.
        starts (int): How many trainings there are in all.
        training (list[dict]): Rows of training.
        validations (list[tuple[dict, dict]]): Rows of validation, each behind the row
            of training before it.
        looks (dict[int, dict]): Iteration -> what was logged of what is learned. Where
            a resumed training counts iterations anew, they are counted on.

    Args:
        logs (Iterable[RunLog]): The logs in the order of their starts, one at least.
    """

    def __init__(self, logs: Iterable[RunLog]) -> None:
        self.first, *others = logs
        self.starts = 1
        self._empty()
        self._add(self.first)
        for log in others:
            if log.begins_another(self.first):
                self.first = log
                self.starts += 1
                self._empty()
            else:
                self._cut(log)
            self._add(log)

    def _empty(self) -> None:
        self.training: list[dict] = []
        self.validations: list[tuple[dict, dict]] = []
        self.looks: dict[int, dict] = {}

    def _cut(self, log: RunLog) -> None:
        """Leave out what came after the place from which a log goes on."""
        self.training = [old for old in self.training if _is_before(old, log)]
        self.validations = [
            (before, row)
            for before, row in self.validations
            if not before or _is_before(before, log)
        ]
        self.looks = {
            place: look
            for place, look in self.looks.items()
            if _is_before(look, log, log.looks)
        }

    def _add(self, log: RunLog) -> None:
        last = self.training[-1] if self.training else None
        if last is not None:
            log.shift = last[_LOG].shift
        if last is not None and not log.counts_as(last[_LOG]):
            places = [last['step'] + last[_LOG].shift, *self.looks]
            log.shift = max(places) - (log.steps[0] - log.span)
        for row in log.rows:
            before = self.training[-1] if self.training else None
            if is_training(row):
                count = _iterations(before, row, log)
                self.training.append({**row, _LOG: log, COUNT: count})
            else:
                self.validations.append((before or {}, row))
        for look in log.looks:
            place = dict(epoch=log.epoch_of(look['step']))
            self.looks[look['step'] + log.shift] = {**look, **place, _LOG: log}


def read_logs(work_dir: str) -> list[RunLog]:
    """Read all logs of a work dir.

    Args:
        work_dir (str): The work dir of a training with MMEngine's ``LocalVisBackend``.

    Returns:
        list[RunLog]: Those that have a row of training, the oldest first.

    Raises:
        ValueError: If a line of a log is no row, or the config beside it none.
    """
    paths = glob.glob(osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))
    # Their folders are named after the time of the start; a link to the newest is none.
    files = {osp.realpath(path): path for path in sorted(paths, reverse=True)}
    return [log for log in map(read_log, sorted(files.values())) if log is not None]


def _is_before(old: dict, log: RunLog, looks: Iterable[dict] = ()) -> bool:
    """Whether a row of an earlier log is of a place before a log goes on.

    ``looks`` of the log may be earlier than its rows of training.
    """
    first = log.training[0]
    if log.counts_as(old[_LOG]):
        if looks or not is_training(old):
            return old['step'] < min(row['step'] for row in [first, *looks])
        if epoch_in(old) and epoch_in(first):
            return (epoch_in(old), old['step']) < (epoch_in(first), first['step'])
        return old['step'] < first['step']
    epoch = epoch_in(first)
    if epoch_in(old) != epoch:
        return epoch_in(old) < epoch
    # Resumed within an epoch, or, nearly always, at the beginning of one.
    share = log.share_of_epoch(epoch, first['step'] - log.span)
    return 0 < old[_LOG].share_of_epoch(epoch, old['step']) <= share


def _iterations(before: dict | None, row: dict, log: RunLog) -> int:
    """How many iterations a row of a log stands for, with the row before it."""
    since = row['step'] - before['step'] if before else 0
    if row['step'] != log.steps[0] or 0 < since < 2 * log.span:
        return since
    # There is none before, some are missing, or iterations are counted anew.
    return log.span
