# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Another learning rate for a whole schedule, also in the middle of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median_low
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import Runner

from mmfakd.model_zoo.type_names import type_name

from .safety import set_on_hooks

# Rates of a parameter group, OneCycleLR's among them.
_RATES = ('lr', 'initial_lr', 'max_lr', 'min_lr')
# Rates that a scheduler is given, and those that it keeps.
GIVEN = ('eta_min', 'eta_max', 'min_value')
_KEPT = ('base_values', '_last_value', 'eta_min', 'eta_max', 'min_values')
# What changes from step to step, or does not change what is learned.
_UNTOLD = (
    *('base_values', '_last_value', 'last_step', '_global_step'),
    *('best', 'num_bad_epochs', 'cooldown_counter'),
    *('verbose', 'params', 'lr', 'foreach', 'fused', 'capturable', 'differentiable'),
    *('lr_scale', 'param_name'),
)

# What all schedulers have.
_SHARED = (
    *('by_epoch', 'begin', 'end', 'verbose', 'param_name'),
    *('base_values', 'last_step', '_global_step', '_last_value'),
)


class GroupChange(NamedTuple):
    """A parameter group with another multiple of the base rate or the base decay.

    Args:
        optimizer (str): Name of its optimizer, ``''`` for the only one.
        group (int): Which of its groups it is.
        setting (str): ``'lr'`` or ``'weight_decay'``.
        then (float): Its value in the one state.
        now (float): Its value in the other one.
    """

    optimizer: str
    group: int
    setting: str
    then: float
    now: float


def set_rate(cfg: Config, rate: float) -> None:
    """Put a learning rate into a config, and the whole schedule in proportion.

    On resume ``LearningRateHook`` applies it to the resumed optimizer and schedulers.

    Args:
        cfg (Config): The config of a training, changed in place.
        rate (float): What ``optim_wrapper.optimizer.lr`` is to be. Absolute rates of
            schedulers, such as ``eta_min``, change by the same factor.

    Raises:
        ValueError: If the rate is not positive, or the config has not just one.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f'--lr {rate}: expected a positive number.')
    optimizer: Any = cfg.optim_wrapper.get('optimizer') or {}
    if not optimizer.get('lr'):
        raise ValueError(
            '--lr: the config has no `optim_wrapper.optimizer.lr`; it may have several '
            'optimizers. Set the rate of each with --cfg-options, and have them '
            'applied on resume with '
            'default_hooks.learning_rate.type=mmfakd.LearningRateHook '
            'default_hooks.learning_rate.from_config=True.'
        )
    factor = rate / optimizer.lr
    optimizer.lr = rate
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if type_name(scheduler).endswith('LR'):
            for key in GIVEN:
                if scheduler.get(key):
                    scheduler[key] = _times(scheduler[key], factor)
    set_on_hooks(cfg, 'learning_rate', from_config=True)


def base_rates(state: Mapping[str, Any], scale: float = 1.0) -> dict[str, float]:
    """Read the learning rates that schedules start from.

    Args:
        state (Mapping): State of an ``OptimWrapper`` or ``OptimWrapperDict``.
        scale (float): What ``auto_scale_lr`` has multiplied the rates by.

    Returns:
        dict[str, float]: Name of an optimizer, ``''`` for the only one -> its rate.
    """
    rates = {}
    for name, part in _parts(state).items():
        base = part.get('base_param_settings')
        # MMEngine does not scale those.
        rates[name] = _initial(base) * scale if base else _initial(_first(part))
    return rates


def rate_factors(
    then: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, float] | None:
    """Compute by what the rates of parameters differ between two states.

    Args:
        then (Mapping): State of an ``OptimWrapper`` or ``OptimWrapperDict``.
        now (Mapping): Another one.

    Returns:
        dict[str, float] | None: Name of an optimizer -> factor. None if a rate is zero.
    """
    before, after = _parts(then), _parts(now)
    factors = {}
    for name in before.keys() & after.keys():
        groups = (part[name]['param_groups'] for part in (before, after))
        rates = [tuple(map(_initial, pair)) for pair in zip(*groups)]
        # Of layers that do not learn (`lr_mult=0`) it tells nothing.
        old, new = next(filter(all, rates), rates[0])
        if not old:
            return None
        factors[name] = new / old
    return factors


def optimizer_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """List the settings of optimizers and schedulers, but for the learning rate.

    They are those that steps do not change.

    Args:
        state (Mapping): ``optimizer`` and ``param_schedulers``, as a
            checkpoint has them.

    Returns:
        dict: Dotted name -> value.
    """
    settings: dict[str, Any] = {}
    for name, part in _parts(state['optimizer']).items():
        prefix = f'{name}.' if name else ''
        group = part.get('base_param_settings') or _first(part)
        for key, value in group.items():
            if not key.startswith(('initial_', 'max_', 'min_')):
                value = group.get(f'initial_{key}', value)
                settings[f'{prefix}optimizer.{key}'] = value
    schedulers = state.get('param_schedulers') or []
    lists = schedulers if isinstance(schedulers, dict) else {'': schedulers}
    for name, states in lists.items():
        prefix = f'{name}.' if name else ''
        for index, own in enumerate(states):
            for key, value in own.items():
                settings[f'{prefix}param_scheduler.{index}.{key}'] = value
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in settings.items()
        if key.rpartition('.')[2] not in _UNTOLD and not callable(value)
    }


def scheduler_kinds(schedulers: Any) -> dict[str, list[str]]:
    """List the classes of schedulers.

    Args:
        schedulers (list | dict | None): Those of a runner.

    Returns:
        dict[str, list[str]]: Name of an optimizer, ``''`` for the only one -> names.
    """
    parts = schedulers if isinstance(schedulers, dict) else {'': schedulers or []}
    return {name: [type(s).__name__ for s in some] for name, some in parts.items()}


def scheduler_fields(states: Any) -> dict[str, list[str]]:
    """List what tells states of schedulers apart, which do not name their class.

    Args:
        states (list | dict): ``param_schedulers`` of a checkpoint.

    Returns:
        dict[str, list[str]]: Name of an optimizer, ``''`` for the only one -> the names
        of the settings of each scheduler.
    """
    parts = states if isinstance(states, dict) else {'': states}

    def fields(state: Mapping[str, Any]) -> str:
        own = (k for k, v in state.items() if k not in _SHARED and not callable(v))
        return ' and '.join(sorted(own))

    return {name: [f'one with {fields(s)}' for s in p] for name, p in parts.items()}


def current_state(runner: Runner) -> dict[str, Any]:
    """Read optimizer and schedulers of a runner as a checkpoint would have them.

    Args:
        runner (Runner): The runner, its optimizer built.

    Returns:
        dict: ``optimizer`` and ``param_schedulers``.
    """
    wrapper: Any = runner.optim_wrapper
    schedulers: Any = runner.param_schedulers or []

    def groups(part: OptimWrapper) -> dict[str, Any]:
        # A whole state dict takes the processes of a sharded optimizer together.
        return dict(
            param_groups=part.optimizer.param_groups,
            base_param_settings=part.base_param_settings,
        )

    def states(some: list[_ParamScheduler]) -> list[dict]:
        return [scheduler.state_dict() for scheduler in some]

    if isinstance(schedulers, dict):
        schedulers = {name: states(some) for name, some in schedulers.items()}
    else:
        schedulers = states(schedulers)
    if isinstance(wrapper, OptimWrapperDict):
        optimizer = {name: groups(part) for name, part in wrapper.items()}
    else:
        optimizer = groups(wrapper)
    return dict(optimizer=optimizer, param_schedulers=schedulers)


def group_sizes(state: Mapping[str, Any]) -> dict[str, list[int]]:
    """Count the parameters of each group.

    Args:
        state (Mapping): State of an ``OptimWrapper`` or ``OptimWrapperDict``.

    Returns:
        dict[str, list[int]]: Name of an optimizer, ``''`` for the only one -> number of
        parameters in each of its groups.
    """
    return {
        name: [len(group['params']) for group in part['param_groups']]
        for name, part in _parts(state).items()
    }


def changed_groups(
    then: Mapping[str, Any], now: Mapping[str, Any]
) -> list[GroupChange]:
    """Find the groups whose multiples (``lr_mult``, ``decay_mult``) differ.

    Another base rate or base decay is no difference: all values then differ by one
    factor.

    Args:
        then (Mapping): State of an ``OptimWrapper`` or ``OptimWrapperDict``.
        now (Mapping): Another one, with as many groups.

    Returns:
        list[GroupChange]: The groups, the learning rates of an optimizer first. A
        setting is not compared where just one of the two bases is 0.
    """
    before, after = _parts(then), _parts(now)
    return [
        change
        for name in before
        if name in after
        for key in ('lr', 'weight_decay')
        for change in _changes(name, key, before[name], after[name])
    ]


def scale_rates(runner: Runner, factors: Mapping[str, float]) -> None:
    """Multiply the learning rates of optimizers, and their schedules with them.

    Each parameter group keeps its multiple of the base rate, and each schedule its
    shape: it goes on as if it had begun with the new rate.

    Args:
        runner (Runner): The runner.
        factors (Mapping[str, float]): Name of an optimizer, ``''`` for the only one ->
            factor.
    """
    for name, wrapper, schedulers in _optimizers(runner):
        factor = factors.get(name, 1.0)
        for group in wrapper.param_groups:
            for key in _RATES:
                if key in group:
                    group[key] = group[key] * factor
        for scheduler in schedulers:
            for key in _KEPT:
                value = getattr(scheduler, key, None)
                if value is not None:
                    setattr(scheduler, key, _times(value, factor))


def restart_optimizer(runner: Runner, state: Mapping[str, Any]) -> None:
    """Let a new optimizer go on where the schedule of an older one stood.

    Args:
        runner (Runner): The runner, its schedulers resumed.
        state (Mapping): State dict of the older optimizer.
    """
    parts = _parts(state)
    for name, wrapper, schedulers in _optimizers(runner):
        old = parts[name]['param_groups'] if name in parts else []
        learning = next(filter(_initial, old), {'lr': 1.0})
        share = float(learning['lr']) / _initial(learning)
        for group in wrapper.param_groups:
            group['lr'] = group.get('initial_lr', group['lr']) * share
        for scheduler in schedulers:
            # There may be other groups than before.
            scheduler.base_values = [g['initial_lr'] for g in wrapper.param_groups]
            scheduler._last_value = [g['lr'] for g in wrapper.param_groups]


def _parts(state: Mapping[str, Any]) -> dict[str, Any]:
    return {'': state} if 'param_groups' in state else dict(state)


def _first(part: Mapping[str, Any]) -> dict[str, Any]:
    return part['param_groups'][0]


def _changes(
    name: str, key: str, then: Mapping[str, Any], now: Mapping[str, Any]
) -> list[GroupChange]:
    """The groups of one optimizer of which one setting has changed."""
    old, new = ([_initial(g, key) for g in p['param_groups']] for p in (then, now))
    before, after = old[0], new[0]
    if then.get('base_param_settings') and now.get('base_param_settings'):
        before, after = (_initial(p['base_param_settings'], key) for p in (then, now))
    if bool(before) != bool(after):
        return []
    factor = after / before if before else 1.0
    ratios = [b / a for a, b in zip(old, new) if a and b]
    if key == 'lr' and ratios and not any(map(partial(_near, factor), ratios)):
        # `auto_scale_lr` multiplies the rates of all groups, and not the base.
        factor = median_low(ratios)
    return [
        GroupChange(name, index, key, a, b)
        for index, (a, b) in enumerate(zip(old, new))
        if not _near(a * factor, b)
    ]


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)


def _initial(group: Mapping[str, Any], key: str = 'lr') -> float:
    """A setting before schedules changed it; 0 if the optimizer has none."""
    return float(group.get(f'initial_{key}', group.get(key)) or 0.0)


def _optimizers(
    runner: Runner,
) -> Iterator[tuple[str, OptimWrapper, list[_ParamScheduler]]]:
    """Name, wrapper and the learning rate's schedulers of each optimizer."""
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
    one = not isinstance(wrapper, OptimWrapperDict)
    for name, part in [('', wrapper)] if one else wrapper.items():
        own = schedulers.get(name, []) if isinstance(schedulers, dict) else schedulers
        yield name, part, [s for s in own if s.param_name == 'lr']


def _times(value: Any, factor: float) -> Any:
    many = isinstance(value, (list, tuple))
    return [v * factor for v in value] if many else value * factor
