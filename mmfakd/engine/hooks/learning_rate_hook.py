# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which learning rate a resumed training has."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfakd.compat.running_loop import all_schedulers
from mmfakd.engine.check_rate import tell_rate
from mmfakd.engine.learning_rate import (
    GIVEN,
    base_rates,
    current_state,
    optimizer_settings,
    rate_factors,
    scale_rates,
    scheduler_fields,
    scheduler_kinds,
)
from mmfakd.messages import aligned
from mmfakd.registry import HOOKS


@HOOKS.register_module()
class LearningRateHook(Hook):
    """Tell, on resume, which settings of the optimizer stay; apply a new rate.

    MMEngine loads the state of optimizer and schedulers over what the config says.
    Here it is told where that differs, and ``mmfakd train --resume --lr 0.01`` (which
    sets ``from_config``) gives the resumed training the rate of the config: the whole
    schedule is multiplied by new over old rate. So it is where ``auto_scale_lr`` is
    on, by the ratio of the total batches. Schedulers of another number or kind are an
    error: MMEngine would put the state of one into another. Any training is told of a
    warm-up that lasts longer than it.

    Args:
        from_config (bool): Whether the config's learning rate counts. Defaults to
            False: the checkpoint's.
    """

    # After ProvenanceHook, which may let the optimizer start anew.
    priority = 'BELOW_NORMAL'

    def __init__(self, from_config: bool = False) -> None:
        self.from_config = from_config
        self._factors: dict[str, float] = {}
        # Rates that schedules start from, and what of it is auto_scale_lr's.
        self._rates: dict[str, float] = {}
        self._scale: float | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the config's settings with those of a checkpoint to resume from.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What has been read, not loaded yet.

        Raises:
            ValueError: If the checkpoint's rate is zero and a new one is to be applied,
                or its schedulers are others.
        """
        if not runner._resume:
            return
        current = current_state(runner)
        _check_schedulers(runner, checkpoint, current)
        if 'optimizer' not in checkpoint:
            return
        scale = _scale(runner)
        told = checkpoint['meta'].get('mmfakd', {})
        then = told.get('lr') or base_rates(checkpoint['optimizer'])
        then = then if isinstance(then, dict) else {'': then}
        now = base_rates(current['optimizer'], scale or 1.0)
        self._scale = told.get('lr_scale')
        self._factors = dict.fromkeys(then, 1.0)
        if self.from_config:
            factors = rate_factors(checkpoint['optimizer'], current['optimizer'])
            if factors is None:
                raise ValueError(
                    f'The learning rate of the checkpoint is {then}: no schedule can '
                    'be multiplied to have another one. Begin anew from its weights '
                    '(--cfg-options load_from=...).'
                )
            self._factors, self._scale = factors, scale or 1.0
        elif scale is not None and self._scale is not None:
            # Switched off, it does not undo what it did.
            self._factors = dict.fromkeys(then, scale / self._scale)
            self._scale = scale
        elif scale is not None:
            runner.logger.warning(
                'auto_scale_lr: the checkpoint does not say for which total batch its '
                'learning rate is; it stays in force. Give the new one as --lr.'
            )
        self._rates = {n: rate * self._factors.get(n, 1.0) for n, rate in then.items()}
        self._tell(runner, checkpoint, current, now)

    def before_train(self, runner: Runner) -> None:
        """Apply a new rate; tell if the training is too short for its warm-up.

        Args:
            runner (Runner): The runner.
        """
        for text in tell_rate(runner):
            runner.logger.warning(text)
        if not self._rates:
            self._scale = _scale(runner) or 1.0
            self._rates = base_rates(current_state(runner)['optimizer'], self._scale)
        factors, self._factors = self._factors, {}
        # A job that is started again has the new rate in its checkpoint already.
        if all(math.isclose(factor, 1.0) for factor in factors.values()):
            return
        scale_rates(runner, factors)
        for name, factor in factors.items():
            rate = self._rates[name]
            runner.logger.warning(
                f'The learning rate{f" of {name}" if name else ""} that schedules '
                f"start from is {rate:g} now, {factor:g} times the checkpoint's "
                f'{rate / factor:g}; all of its schedule changes likewise.'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the rate, and what it was scaled by; keep functions out.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be written.
        """
        checkpoint['meta'].setdefault('mmfakd', {}).update(
            lr=self._rates.get('', self._rates),
            lr_scale=self._scale,
            schedulers=scheduler_kinds(runner.param_schedulers),
        )
        for state in all_schedulers(checkpoint.get('param_schedulers')):
            # OneCycleLR's cosine, which no checkpoint may hold and each run has.
            for key in [key for key, value in state.items() if callable(value)]:
                del state[key]

    def _tell(
        self, runner: Runner, checkpoint: dict, current: dict, now: dict[str, float]
    ) -> None:
        """Tell which settings of the config do not count."""
        rows = [('setting', 'checkpoint (in force)', 'config')]
        for name, rate in self._rates.items():
            if name in now and not math.isclose(rate, now[name], rel_tol=1e-6):
                key = f'{name}.optimizer.lr' if name else 'optimizer.lr'
                rows.append((key, f'{rate:g}', f'{now[name]:g}'))
        then, after = optimizer_settings(checkpoint), optimizer_settings(current)
        for key in dict.fromkeys([*then, *after]):
            scaled = key.rpartition('.')[2] in ('min_values', *GIVEN)
            if then.get(key) != after.get(key) and not (self.from_config and scaled):
                rows.append((key, str(then.get(key, '-')), str(after.get(key, '-'))))
        if len(rows) > 1:
            runner.logger.warning(
                "The checkpoint's settings of optimizer and schedulers stay in force; "
                f'the config has others:\n{aligned(rows)}\n'
                'Give the learning rate as --lr to have it applied. Others count in a '
                'new training only, which may start from the weights of this one '
                '(--cfg-options load_from=...).'
            )


def _check_schedulers(runner: Runner, checkpoint: dict, current: dict) -> None:
    """Refuse schedulers that those of the checkpoint cannot go on in."""
    then = checkpoint['meta'].get('mmfakd', {}).get('schedulers')
    now = scheduler_kinds(runner.param_schedulers)
    if then is None:
        # Of an earlier version, or of MMEngine's own: it names no classes.
        states = checkpoint.get('param_schedulers', current['param_schedulers'])
        fields = [scheduler_fields(s) for s in (states, current['param_schedulers'])]
        then = fields[0] if fields[0] != fields[1] else now
    if then != now:
        raise ValueError(
            f'The schedule is another one: the checkpoint has {_listed(then)}; '
            f'param_scheduler of the config has {_listed(now)}. Restore it, or begin a '
            'new training from the weights of the checkpoint '
            '(--cfg-options load_from=...).'
        )


def _listed(kinds: dict[str, list[str]]) -> str:
    texts = []
    for name, some in kinds.items():
        listed = f' ({", ".join(some)})' if some else ''
        texts.append(f'{name and f"{name}: "}{len(some)} schedulers{listed}')
    return ', '.join(texts)


def _scale(runner: Runner) -> float | None:
    """What ``auto_scale_lr`` multiplies the config's rate by, as MMEngine has it."""
    scaling: Any = getattr(runner, 'auto_scale_lr', None) or {}
    if not scaling.get('enable', False):
        return None
    batch = runner.world_size * (runner.train_dataloader.batch_size or 1)
    return batch / scaling['base_batch_size']
