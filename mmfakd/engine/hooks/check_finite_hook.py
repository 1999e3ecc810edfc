# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Stop before a diverged model overwrites a good checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmfakd.registry import HOOKS


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """Check losses at an interval, losses and weights before every checkpoint.

    The losses are those that the model returned for logging, so a level that
    diverged is named, and the modules themselves never wait for the device. As the
    check runs before ``CheckpointHook``, neither is a checkpoint overwritten nor an
    older one removed.

    Args:
        interval (int): Iterations between two checks of the losses. Defaults to 50.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    # Before CheckpointHook, which has VERY_LOW.
    priority = 'LOW'

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval}; expected a positive number.')
        self.interval = interval
        self._losses: dict[str, torch.Tensor] = {}

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Keep the losses; check them at the interval and before a checkpoint.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (Any, optional): The batch, unused.
            outputs (Mapping, optional): Name -> logged value.

        Raises:
            FloatingPointError: If a loss, or before a checkpoint a weight, is not
                finite.
        """
        self._losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        if self._checkpoint_follows(runner):
            self._check(runner, weights=True)
        elif self.every_n_train_iters(runner, self.interval):
            self._check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check before the checkpoint of the epoch.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
        """
        self._check(runner, weights=True)

    def before_val_epoch(self, runner: Runner) -> None:
        """Check before a validation that may end in a best checkpoint.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
        """
        if self._losses:
            self._check(runner, weights=True)

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

    def _check(self, runner: Runner, weights: bool = False) -> None:
        where = f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}'
        advice = (
            'No checkpoint was written after this and none was removed. Resume from '
            'the last one with a lower learning rate or `loss_weight`, a longer '
            '`warmup`, or gradient clipping.'
        )
        # The total is infinite whenever a part of it is: name the parts.
        parts = {k: v for k, v in self._losses.items() if k != 'loss'} or self._losses
        bad = _not_finite(parts)
        if bad:
            values = ', '.join(f'{name} = {float(parts[name])}' for name in bad)
            raise FloatingPointError(f'Loss not finite at {where}: {values}. {advice}')
        if not weights:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        bad = _not_finite(dict(model.named_parameters()))
        if bad:
            raise FloatingPointError(
                f'{len(bad)} parameters not finite at {where}: '
                f'{", ".join(bad[:6])}. {advice}'
            )


@torch.no_grad()
def _not_finite(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors with an infinite or undefined entry: one host read."""
    tensors = {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        return []
    # The sum of |x| * 0 is finite just when every x is.
    flags = torch.stack([(v.detach() * 0).sum().float() for v in tensors.values()])
    return [name for name, flag in zip(tensors, flags.isfinite().tolist()) if not flag]


__all__ = ['CheckFiniteHook']
