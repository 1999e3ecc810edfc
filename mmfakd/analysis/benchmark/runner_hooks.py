# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the hooks of a runner add to a step."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .operation_counter import Operation, OperationCounter
from .random_batch import random_batch
from .step import build_part
from .step_parts import StepParts

# Neither the first iteration nor one at which logs or checks are due.
_COUNTED, _ITERATIONS = 2, 3


def hook_operations(cfg: Config, batch: int, pixels: int) -> list[Operation]:
    """List the operations of the hooks in one iteration of a training.

    A runner trains for some iterations, on the CPU and random images, with the hooks
    of the config. What they do depends on how many values are logged, not on the
    device.

    Args:
        cfg (Config): A config of a training.
        batch (int): Images of a batch.
        pixels (int): Their side.

    Returns:
        list[Operation]: The operations.
    """
    cfg = copy.deepcopy(cfg)
    # What is counted does not depend on weights.
    cfg.model.teacher_ckpt = None
    model = build_part(cfg)
    if hasattr(model, 'report'):
        model.report = False
    student = getattr(model, 'architecture', model)
    data = random_batch(cfg, student, batch, (pixels, pixels), 'cpu')
    images: Any = list(zip(data['inputs'], data['data_samples']))
    loader: DataLoader = DataLoader(images * _ITERATIONS, batch, collate_fn=_collate)
    # None of these has anything to save or to resume here.
    left_out = ('checkpoint', 'student', 'resume', 'provenance', 'preemption')
    hooks = {k: v for k, v in cfg.default_hooks.items() if k not in left_out}
    hooks['checkpoint'] = None
    counter = OperationCounter(StepParts([]))
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model,
            folder,
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=cfg.optim_wrapper,
            default_hooks=hooks,
            log_level='ERROR',
            default_scope=cfg.get('default_scope'),
            # Runners of one name and second would share what writes into the folder.
            experiment_name=Path(folder).name,
        )
        runner.register_hook(_Begin(counter), priority=0)
        runner.register_hook(_End(counter), priority=100)
        with warnings.catch_warnings():
            # Of a warm-up that never ends.
            warnings.simplefilter('ignore')
            runner.train()
    return [o for o in counter.operations if o.part == 'hooks']


class _Begin(Hook):
    """Enters the counter before all other hooks of an iteration."""

    def __init__(self, counter: OperationCounter) -> None:
        self.counter = counter

    def before_train_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        if batch_idx == _COUNTED:
            self.counter.__enter__()


class _End(_Begin):
    """Leaves it after all of them."""

    def before_train_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        pass

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        if batch_idx == _COUNTED:
            self.counter.__exit__(None, None, None)


def _collate(images: list) -> dict:
    inputs, samples = zip(*images)
    return dict(inputs=list(inputs), data_samples=list(samples))
