# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One training, as its logs tell it."""

from __future__ import annotations

from dataclasses import dataclass

from mmengine.config import Config


@dataclass
class Run:
    """One training, stitched together over its resumptions.

    Attributes:
        work_dir (str): Its work dir, as given.
        name (str): Name of its config, without ``.py``.
        seed (int, optional): Its random seed; None if neither config nor log has it.
        config (Config): The config of its newest log.
        begin (Config): The config of the log that began it; a resumption's own where
            no log before it is there.
        from_start (bool): Whether that log begins with the first iteration.
        unit (str): What its loop counts, ``'epoch'`` or ``'iteration'``.
        length (int, optional): Epochs or iterations that the config asks for.
        scores (dict[str, dict[int, float]]): Metric -> epoch or iteration -> score.
        losses (dict[int, float]): Epoch or iteration -> the student's own training
            loss, as weighted in the config and without distillation losses.
        seconds (float, optional): Time in training iterations: logged times per
            iteration, each multiplied by the iterations since the entry before.
        step_seconds (float, optional): Median of the logged times per iteration.
        data_share (float, optional): Share of that time that went into waiting for
            data, from 0 to 1.
        remarks (list[str]): What a reader has to know about the logs.
        risk (str, optional): What building something from the config could run; None
            if it names classes of OpenMMLab and torch alone.
        trusted (bool): Whether its config is the user's own, so that
            whatever it names may be built.
    """

    work_dir: str
    name: str
    seed: int | None
    config: Config
    begin: Config
    from_start: bool
    unit: str
    length: int | None
    scores: dict[str, dict[int, float]]
    losses: dict[int, float]
    seconds: float | None
    step_seconds: float | None
    data_share: float | None
    remarks: list[str]
    risk: str | None = None
    trusted: bool = False

    def last(self, metric: str) -> float:
        """Give the score of the last validation.

        Args:
            metric (str): The score to read.

        Returns:
            float: The score.

        Raises:
            ValueError: If the logs hold no such score.
        """
        if metric not in self.scores:
            has = sorted(self.scores) or 'no validation at all'
            raise ValueError(f'{self.work_dir}: no {metric!r} in its logs, but {has}.')
        curve = self.scores[metric]
        return curve[max(curve)]
