# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tell of a training that moves no weight."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from mmfakd.engine.unwrap import optim_wrappers, unwrapped_model
from mmfakd.registry import HOOKS

# More steps in a row than a loss scaler skips that works.
_SKIPPED = 20


@HOOKS.register_module()
class CheckLearningHook(Hook):
    """Warn if not one weight of the student has changed for a while.

    A schedule whose factor is 0, or which has come down to 0 long before the training
    ends, leaves every weight as it is, while losses and scores are logged as ever. So
    weights are compared at the end of every epoch and at an interval: one sum a
    parameter, all read from the device at once. Where the student is not to learn, the
    connectors are compared. It is told once.

    Args:
        interval (int): Iterations between two looks within an epoch. Defaults to 500.

    Raises:
        ValueError: If ``interval`` is not positive; at the beginning of a training if
            ``clip_grad`` leaves no gradient.
    """

    def __init__(self, interval: int = 500) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval}; expected a positive number.')
        self.interval = interval
        self._told = self._moved = False
        # The iteration of the last look, and what was seen.
        self._last = 0
        self._sums: Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        """Look at the weights as they are.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If gradients are clipped to nothing, or turned around.
        """
        for wrapper in optim_wrappers(runner.optim_wrapper):
            _check_clipping(getattr(wrapper, 'clip_grad_kwargs', None) or {})
        counts, length = _accumulated(runner), _length(runner)
        if counts > length:
            print_log(
                f'optim_wrapper.accumulative_counts={counts}, but the training has '
                f'{length} iterations: it is a single step of the optimizer, '
                'at its end. Give a smaller number.',
                logger='current',
                level=logging.WARNING,
            )
        # What is resumed has learned before.
        self._moved = runner.iter > 0
        self._last, self._sums = runner.iter, _sums(_learning(runner)[1])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Compare at the interval.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (Any, optional): The batch, unused.
            outputs (dict, optional): Name -> logged value, unused.
        """
        # The loop counts this iteration after its hooks.
        if runner.iter + 1 - self._last >= max(self.interval, _accumulated(runner)):
            self._compare(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Compare at the end of an epoch.

        Args:
            runner (Runner): The runner.
        """
        self._compare(runner, runner.iter)

    def _compare(self, runner: Runner, done: int) -> None:
        if self._told or self._sums is None:
            return
        name, weights = _learning(runner)
        sums = _sums(weights)
        if sums is None or not torch.equal(self._sums, sums):
            self._moved, self._last, self._sums = True, done, sums
            return
        count, least = done - self._last, _accumulated(runner)
        if any(_rates(runner)):
            # Loss scalers skip single steps, and several ones at the beginning.
            least = max(least, min(self.interval, _SKIPPED))
        if not count or count < least:
            return
        # Usual schedules come to 0 in the last epoch.
        if self._moved and done >= _length(runner):
            return
        self._told = True
        told = 'LEARNING HAS ENDED' if self._moved else 'NOTHING IS LEARNED'
        print_log(
            f'{told}: no weight of the {name} has changed in the last {count} '
            f'iterations, up to iteration {done}. {_reason(runner)}',
            logger='current',
            level=logging.WARNING,
        )


def _learning(runner: Runner) -> tuple[str, list[nn.Parameter]]:
    """What is to learn, with its name: the student, else what the distiller adds."""
    model = unwrapped_model(runner)
    parts = {'student': 'architecture', 'connectors': 'distiller'}
    if not hasattr(model, 'architecture'):
        return 'model', [p for p in model.parameters() if p.requires_grad]
    for name, part in parts.items():
        module = getattr(model, part, None)
        weights = [p for p in module.parameters() if p.requires_grad] if module else []
        if weights:
            return name, weights
    return 'student', []


@torch.no_grad()
def _sums(weights: list[nn.Parameter]) -> Tensor | None:
    """One number a parameter, so exact that a change of a single one shows."""
    if not weights:
        return None
    # Of Apple's devices, none has float64.
    exact = torch.float32 if weights[0].device.type == 'mps' else torch.float64
    return torch.stack([p.sum(dtype=exact) for p in weights]).cpu()


def _rates(runner: Runner) -> list[float]:
    wrappers = optim_wrappers(runner.optim_wrapper)
    return [rate for wrapper in wrappers for rate in wrapper.get_lr()['lr']]


def _length(runner: Runner) -> float:
    """How many iterations a training has, if its loop knows."""
    return getattr(runner.train_loop, 'max_iters', math.inf)


def _accumulated(runner: Runner) -> int:
    """Of how many iterations gradients are summed up for a step."""
    wrappers = optim_wrappers(runner.optim_wrapper)
    return max(getattr(wrapper, '_accumulative_counts', 1) for wrapper in wrappers)


def _check_clipping(clip: dict[str, Any]) -> None:
    """Refuse a limit of gradients that leaves none, or turns them around."""
    for key in ('max_norm', 'clip_value'):
        limit = clip.get(key, 1)
        if isinstance(limit, (int, float)) and not limit > 0:
            raise ValueError(
                f'optim_wrapper.clip_grad has {key}={limit}, with which no gradient '
                'is left or its sign changes: nothing would be learned. Give a number '
                'above 0, or take `clip_grad` out.'
            )


def _reason(runner: Runner) -> str:
    """Why weights may stay as they are, and what to do."""
    rates = _rates(runner)
    if not any(rates):
        return (
            'The learning rate is 0: by a factor of 0 in `param_scheduler`, a schedule '
            'that has come to 0 before the training ends (`T_max`, `end`), or '
            '`optimizer.lr`. Change that and train anew, from the weights so far '
            '(`load_from`) where they have learned.'
        )
    return (
        f'The learning rate is {max(rates):g}. Look at `optim_wrapper`: whether it '
        'has these weights, with a rate above 0 (`paramwise_cfg`), how it clips '
        '(`clip_grad`), and whether a loss scaler skips every step.'
    )
