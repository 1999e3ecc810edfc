# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Keep what the first step of training says of the distillation."""

from __future__ import annotations

import json
import os.path as osp
from collections.abc import Iterator
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.checkpoints.atomic import whole_file
from mmfakd.engine.unwrap import optim_wrappers, unwrapped_model
from mmfakd.registry import HOOKS

FILE = 'distillation.json'


@HOOKS.register_module()
class FirstStepHook(Hook):
    """Write the report of ``FeatureDistill`` into the work dir and the visualizer.

    The model looks at its first training step by itself, and stops there if it teaches
    nothing. This hook tells it which weights the optimizer moves, writes its report as
    ``distillation.json``, and gives its numbers to the visualizer. A training that is
    resumed has been looked at: the file of its beginning stays.
    """

    def __init__(self) -> None:
        self._kept = False

    def before_train(self, runner: Runner) -> None:
        """Tell the model which of its parameters are going to learn.

        Args:
            runner (Runner): The runner.
        """
        model = unwrapped_model(runner)
        note = getattr(model, 'note_optimized', None)
        if note is not None:
            note_optimized(model, runner.optim_wrapper)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep the report after the first iteration.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (Any, optional): The batch, unused.
            outputs (dict, optional): Name -> logged value, unused.
        """
        if not self._kept:
            self._kept = True
            self._keep(runner)

    @master_only
    def _keep(self, runner: Runner) -> None:
        step = getattr(unwrapped_model(runner), 'first_step', None)
        if step is None:
            return
        path = osp.join(runner.work_dir, FILE)
        with whole_file(path) as part, open(part, 'w') as file:
            json.dump(step.as_dict(), file, indent=2, allow_nan=False)
        runner.visualizer.add_scalars(step.scalars(), step=runner.iter + 1)


def note_optimized(model: Any, optim_wrapper: Any) -> None:
    """Tell a model which of its parameters an optimizer moves.

    Args:
        model (nn.Module): The model, with a method ``note_optimized``.
        optim_wrapper (OptimWrapper | OptimWrapperDict): The optimizer of all of it.
    """
    groups = list(_groups(optim_wrapper))
    given = [p for group in groups for p in group['params']]
    own = {id(p) for p in model.parameters()}
    # Some strategies give their optimizers flat copies, which tell nothing.
    if given and all(id(p) in own for p in given):
        # A warm-up of the learning rate may begin at 0.
        moved = [g for g in groups if g.get('initial_lr', g.get('lr')) != 0]
        model.note_optimized([p for group in moved for p in group['params']])


def _groups(optim_wrapper: Any) -> Iterator[dict[str, Any]]:
    for wrapper in optim_wrappers(optim_wrapper):
        # The wrapper itself lists one group more, for schedules.
        optimizer = getattr(wrapper, 'optimizer', None)
        yield from getattr(optimizer, 'param_groups', ())
