# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Stop before a diverged model overwrites a good checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmfakd.engine.unwrap import unwrapped_model
from mmfakd.registry import HOOKS

_Key = TypeVar('_Key')


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """Check losses and weights at an interval and before every checkpoint.

    The losses are those that the model returned for logging, so neither the modules
    nor the iterations between two checks wait for the device. All of them are kept
    until the check: the level that diverged first is named, although one step later
    everything has. As the check runs before ``CheckpointHook``, neither is a
    checkpoint overwritten nor an older one removed.

    Args:
        interval (int): Iterations between two checks. Defaults to 50.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    # Before CheckpointHook, which has VERY_LOW.
    priority = 'LOW'

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval}; expected a positive number.')
        self.interval = interval
        # Where and name of every loss since the last check, and its value.
        self._losses: dict[tuple[str, str], torch.Tensor] = {}

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Keep the losses; check at the interval and before a checkpoint.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (Any, optional): The batch, unused.
            outputs (Mapping, optional): Name -> logged value.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
        """
        where = f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}'
        losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        for name, value in losses.items():
            # The total is infinite whenever a part of it is: name the parts.
            if isinstance(value, torch.Tensor) and (name != 'loss' or len(losses) == 1):
                # Without the graph behind it.
                self._losses[where, name] = value.detach()
        due = self.every_n_train_iters(runner, self.interval)
        if due or self._checkpoint_follows(runner):
            self._check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check before the checkpoint of the epoch.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
        """
        self._check(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Check before a validation that may end in a best checkpoint.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
        """
        self._check(runner)

    def _checkpoint_follows(self, runner: Runner) -> bool:
        return any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and (
                self.every_n_train_iters(runner, hook.interval, hook.save_begin)
                or (hook.save_last and self.is_last_train_iter(runner))
            )
            for hook in runner.hooks
        )

    def _check(self, runner: Runner) -> None:
        losses, self._losses = self._losses, {}
        if not losses:
            return
        advice = (
            'No checkpoint was written after this and none was removed. Resume from '
            'the last one with a lower learning rate (`mmfakd train ... --resume --lr '
            '0.01`) or `loss_weight`, a longer `warmup`, or gradient clipping.'
        )
        bad = _not_finite(losses)
        if bad:
            where, _ = bad[0]
            first = [key for key in bad if key[0] == where]
            values = ', '.join(f'{key[1]} = {float(losses[key])}' for key in first)
            raise FloatingPointError(f'Loss not finite at {where}: {values}. {advice}')
        model = unwrapped_model(runner)
        names = _not_finite(dict(model.named_parameters()))
        if names:
            where, _ = next(reversed(losses))
            raise FloatingPointError(
                f'{len(names)} parameters not finite after {where}: '
                f'{", ".join(names[:6])}. {advice}'
            )


@torch.no_grad()
def _not_finite(tensors: dict[_Key, torch.Tensor]) -> list[_Key]:
    """Keys of the tensors with an infinite or undefined entry: one host read."""
    if not tensors:
        return []
    # The sum of |x| * 0 is finite just when every x is.
    flags = torch.stack([(v.detach() * 0).sum().float() for v in tensors.values()])
    return [key for key, flag in zip(tensors, flags.isfinite().tolist()) if not flag]
