# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Measure what a look of LearningPicturesHook costs, in iterations of its training.

    python .dev_scripts/picture_cost.py           # measures, writes log and table
    python .dev_scripts/picture_cost.py --table   # writes the table from the log

Each pair is trained in one process on one thread, without the hook, with it, and with
it drawing. CPU seconds of every iteration are taken, so that other work on the machine
counts for little. The log is docs/en/results/logs/picture_cost.json, the table stands
in docs/en/pictures.md.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.messages import markdown
from mmfakd.model_zoo.find import config_file

REPOSITORY = Path(__file__).resolve().parents[1]
LOG = REPOSITORY / 'docs/en/results/logs/picture_cost.json'
PAGE = REPOSITORY / 'docs/en/pictures.md'
TABLE = re.compile(r'(<!-- picture cost -->\n).*?(<!-- end of picture cost -->)', re.S)
CONFIGS = (
    'fakd_review_r18w32_r18w4_1xb50_digits',
    'fakd_review_r56_r20_1xb64_cifar100',
    'fakd_review_gfl_r18_r18w16_1xb8_bccd',
)
ITERATIONS, INTERVAL = 41, 8
SIDES: dict[str, dict[str, Any] | None] = dict(
    without=None, numbers=dict(), pictures=dict(images=True)
)


class Watch(Hook):
    """Takes CPU seconds of every iteration, what all hooks do included."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.marks: list[float] = []

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Take the time between two iterations."""
        self.marks.append(time.process_time())

    def after_train(self, runner: Runner) -> None:
        """Take the end of the last one.

        Args:
            runner (Runner): The runner.
        """
        self.marks.append(time.process_time())


def measure(name: str, hook: dict[str, Any] | None, folder: str) -> list[float]:
    """Train for some iterations.

    Args:
        name (str): The config's name.
        hook (dict, optional): Arguments of the hook; None for a training without.
        folder (str): A work dir.

    Returns:
        list[float]: CPU seconds of each iteration.
    """
    cfg = Config.fromfile(config_file(name))
    cfg.work_dir = folder
    cfg.experiment_name = f'{Path(folder).name}-{time.time_ns()}'
    cfg.log_level = 'ERROR'
    # What weights there are changes no time.
    cfg.model.teacher_ckpt = None
    cfg.train_cfg = dict(by_epoch=False, max_iters=ITERATIONS, val_interval=10**6)
    cfg.param_scheduler = None
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    cfg.model.distiller.pop('warmup', None)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    for key in ('epoch_seed', 'first_step', 'provenance', 'student'):
        cfg.default_hooks.pop(key, None)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=10**6)
    cfg.default_hooks.checkpoint.update(by_epoch=False, save_last=False)
    if hook is not None:
        kind = 'mmfakd.LearningPicturesHook'
        cfg.custom_hooks = [dict(hook, type=kind, interval=INTERVAL)]
    runner, watch = Runner.from_cfg(cfg), Watch()
    runner.register_hook(watch)
    runner.train()
    return [after - before for before, after in zip(watch.marks, watch.marks[1:])]


def summarise(name: str, folder: str) -> dict[str, Any]:
    """Measure one pair.

    Args:
        name (str): The config's name.
        folder (str): A work dir.

    Returns:
        dict: Medians: seconds of an iteration, without the hook and, between two looks,
        with it; what a look takes beside its iteration, in iterations.
    """
    seconds = {side: measure(name, hook, folder) for side, hook in SIDES.items()}
    # The first one is that of the report, the last one of a checkpoint.
    whole = range(2, ITERATIONS)
    step = statistics.median(seconds['without'][i - 1] for i in whole)
    found: dict[str, Any] = dict(config=name, seconds=step)
    for side in ('numbers', 'pictures'):
        looks = [seconds[side][i - 1] for i in whole if i % INTERVAL == 0]
        between = [seconds[side][i - 1] for i in whole if i % INTERVAL]
        found[side] = dict(
            look=statistics.median(looks) / step - 1,
            between=statistics.median(between) / step,
        )
    return found


def table(log: dict[str, Any]) -> str:
    """Write the table.

    Args:
        log (dict): What has been measured.

    Returns:
        str: Markdown.
    """
    head = ['config', 'iteration', 'a look', 'with pictures', 'between looks']
    rows = [
        [
            f'`{row["config"]}`',
            f'{row["seconds"]:.3f} s',
            f'{row["numbers"]["look"]:.1f} iterations',
            f'{row["pictures"]["look"]:.1f} iterations',
            f'{row["numbers"]["between"]:.2f}',
        ]
        for row in log['pairs']
    ]
    lines = markdown([head, *rows])
    return '\n'.join([*lines, '', f'torch {log["torch"]}, one CPU thread.', ''])


def main(arguments: list[str] | None = None) -> None:
    """Measure, unless only the table is to be written.

    Args:
        arguments (list[str], optional): Of the command line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--table', action='store_true', help='measure nothing')
    if not parser.parse_args(arguments).table:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            pairs = [summarise(name, folder) for name in CONFIGS]
        log = dict(torch=torch.__version__, interval=INTERVAL, pairs=pairs)
        LOG.write_text(json.dumps(log, indent=1) + '\n')
    made = table(json.loads(LOG.read_text()))
    text, count = TABLE.subn(rf'\g<1>{made}\g<2>', PAGE.read_text())
    if not count:
        raise SystemExit(f'{PAGE} has no place for the table: {TABLE.pattern}')
    PAGE.write_text(text)


if __name__ == '__main__':
    main()
