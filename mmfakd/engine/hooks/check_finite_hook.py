# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Stop before a diverged model overwrites a good checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmfakd.engine.unwrap import optim_wrappers, unwrapped_model
from mmfakd.registry import HOOKS

_Key = TypeVar('_Key')

# There, float16 overflows at gradients of 2^30.
_LEAST_SCALE = 2.0**-14
_STATISTICS = ('running_mean', 'running_var')


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """Check losses and weights at an interval and before every checkpoint.

    The losses are those that the model returned for logging, so neither the modules
    nor the iterations between two checks wait for the device. All of them are kept
    until the check: the level that diverged first is named, although one step later
    everything has. As the check runs before ``CheckpointHook``, neither is a
    checkpoint overwritten nor an older one removed.

    Under a loss scaler (``--amp`` with float16) a step whose gradients overflow is
    skipped, and nothing is lost: neither such gradients nor a few losses that
    overflow themselves stop the training. A warning counts these. Too many in a row
    are an error, and so is a scaler that has found no scale without overflow, as then
    nothing is learned.

    Args:
        interval (int): Iterations between two checks. Defaults to 50.
        max_skipped (int): Losses in a row that may be not finite where a loss scaler
            skips their steps. Defaults to 10.

    Raises:
        ValueError: If ``interval`` is not positive or ``max_skipped`` is negative.
    """

    # Before CheckpointHook, which has VERY_LOW.
    priority = 'LOW'

    def __init__(self, interval: int = 50, max_skipped: int = 10) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval}; expected a positive number.')
        if max_skipped < 0:
            raise ValueError(f'max_skipped={max_skipped}; expected 0 or more.')
        self.interval, self.max_skipped = interval, max_skipped
        # Steps in a row, up to the last check, whose loss was not finite.
        self._skipped = 0
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
            self.check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check before the checkpoint of the epoch.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
        """
        self.check(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Check before a validation that may end in a best checkpoint.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
        """
        self.check(runner)

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

    def check(self, runner: Runner) -> None:
        """Check the losses since the last check, and the weights.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: If one of them is not finite.
        """
        losses, self._losses = self._losses, {}
        if not losses:
            return
        advice = (
            'No checkpoint was written after this and none was removed. Resume from '
            'the last one with a lower learning rate (`mmfakd train ... --resume --lr '
            '0.01`) or `loss_weight`, a longer `warmup`, or gradient clipping.'
        )
        scaler = _loss_scaler(runner)
        self._check_losses(losses, advice, scaler)
        where, _ = next(reversed(losses))
        if scaler is not None and scaler.get_scale() < _LEAST_SCALE:
            raise FloatingPointError(
                f'At {where} the loss scaler is down to a scale of '
                f'{scaler.get_scale():.1e}: gradients are not finite at any scale, so '
                'that every step is skipped and nothing is learned. Some loss has none '
                'that is finite (a root or logarithm of zero, a division by it). '
                f'{advice}'
            )
        model = unwrapped_model(runner)
        names = _not_finite(dict(model.named_parameters()))
        if names:
            raise FloatingPointError(
                f'{len(names)} parameters not finite after {where}: '
                f'{", ".join(names[:6])}. {advice}'
            )
        # A step that is skipped has moved these all the same.
        buffers = model.named_buffers() if scaler is not None else ()
        names = _not_finite({k: v for k, v in buffers if k.endswith(_STATISTICS)})
        if names:
            raise FloatingPointError(
                f'{len(names)} running statistics not finite after {where}: '
                f'{", ".join(names[:6])}: features overflowed in half precision. Train '
                f'with `--cfg-options optim_wrapper.dtype=bfloat16`. {advice}'
            )

    def _check_losses(
        self, losses: dict[tuple[str, str], torch.Tensor], advice: str, scaler: Any
    ) -> None:
        """Refuse losses that are not finite, unless a scaler skips their steps."""
        bad = _not_finite(losses)
        wrong = {where for where, _ in bad}
        allowed = 0 if scaler is None else self.max_skipped
        for where in dict.fromkeys(where for where, _ in losses):
            self._skipped = self._skipped + 1 if where in wrong else 0
            if self._skipped <= allowed:
                continue
            first = [key for key in bad if key[0] == where]
            values = ', '.join(f'{key[1]} = {float(losses[key])}' for key in first)
            before = f' and {allowed} steps before' if allowed else ''
            raise FloatingPointError(
                f'Loss not finite at {where}{before}: {values}. {advice}'
            )
        if wrong:
            print_log(
                f'The loss of {len(wrong)} steps was not finite, the last at '
                f'{bad[-1][0]}: {bad[-1][1]}. The loss scaler skipped these steps (its '
                f'scale is {scaler.get_scale():g}). If it happens often, train with '
                '`optim_wrapper.dtype=bfloat16`.',
                logger='current',
                level=logging.WARNING,
            )


def _loss_scaler(runner: Runner) -> Any:
    """What skips steps whose gradients overflow; None where nothing does."""
    parts = optim_wrappers(getattr(runner, 'optim_wrapper', None))
    scalers: list[Any] = [getattr(part, 'loss_scaler', None) for part in parts]
    if any(scaler is None or not scaler.is_enabled() for scaler in scalers):
        return None
    return min(scalers, key=lambda scaler: scaler.get_scale())


@torch.no_grad()
def _not_finite(tensors: dict[_Key, torch.Tensor]) -> list[_Key]:
    """Keys of the tensors with an infinite or undefined entry: one host read."""
    if not tensors:
        return []
    # The sum of |x| * 0 is finite just when every x is.
    flags = torch.stack([(v.detach() * 0).sum().float() for v in tensors.values()])
    return [key for key, flag in zip(tensors, flags.isfinite().tolist()) if not flag]
