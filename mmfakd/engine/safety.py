# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The hooks without which a training can lose something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

# Name in `default_hooks` -> type. As default hooks they join those of a base config,
# where a list of custom hooks would replace its own.
TRAINING_HOOKS = dict(
    checkpoint='mmfakd.SafeCheckpointHook',
    resume='mmfakd.ResumeHook',
    provenance='mmfakd.ProvenanceHook',
    preemption='mmfakd.PreemptionHook',
    learning_rate='mmfakd.LearningRateHook',
)
DISTILLATION_HOOKS = dict(
    **TRAINING_HOOKS,
    student='mmfakd.StudentCheckpointHook',
    check_finite='mmfakd.CheckFiniteHook',
    epoch_seed='mmfakd.EpochSeedHook',
)
# What MMEngine adds to every config unless it says None.
_STOCK_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
)


def distillation_hooks(cfg: Config) -> dict[str, dict[str, Any]]:
    """Choose what a distillation adds to the default hooks of its student's config.

    Args:
        cfg (Config): The student's config.

    Returns:
        dict[str, dict]: Name -> config. The student's own arguments of its checkpoint
        hook stay.
    """
    hooks: dict[str, dict[str, Any]] = {
        name: dict(type=kind) for name, kind in DISTILLATION_HOOKS.items()
    }
    if not (cfg.get('default_hooks') or {}).get('checkpoint'):
        # As MMEngine has it where a config says nothing.
        hooks['checkpoint'].update(interval=1)
    loop = cfg.get('train_cfg') or {}
    if not (loop.get('by_epoch') or 'Epoch' in str(loop.get('type', ''))):
        hooks.pop('epoch_seed')
    return hooks


def add_safety_hooks(cfg: Config) -> None:
    """Give a config the hooks that save, resume and check, as far as it lacks them.

    MMEngine's ``CheckpointHook`` becomes a ``SafeCheckpointHook`` with the same
    arguments. A hook that the config sets to None stays off.

    Args:
        cfg (Config): The config of a training, changed in place.
    """
    # A config copies what it is given.
    cfg.default_hooks = cfg.get('default_hooks') or {}
    hooks = cfg.default_hooks
    for hook in hook_configs(cfg):
        if _name(hook) == 'CheckpointHook':
            hook['type'] = TRAINING_HOOKS['checkpoint']
    hooks.setdefault('checkpoint', dict(type=TRAINING_HOOKS['checkpoint'], interval=1))
    has = {_name(hook) for hook in hook_configs(cfg)}
    # The last one says at the start what else would show later.
    wanted = dict(TRAINING_HOOKS, check_data='mmfakd.CheckDataHook')
    for key, kind in wanted.items():
        if kind.rpartition('.')[2] not in has:
            hooks.setdefault(key, dict(type=kind))


def drop_absent_hooks(cfg: Config) -> None:
    """Take hooks out that a config sets to None. MMEngine does that for its own only.

    Args:
        cfg (Config): A config, changed in place.
    """
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in _STOCK_HOOKS:
            hooks.pop(name)


def hook_configs(cfg: Config) -> Iterator[dict]:
    """List the hooks of a config.

    Args:
        cfg (Config): The config.

    Yields:
        dict: Each hook that is given as a config.
    """
    hooks = [
        *(cfg.get('default_hooks') or {}).values(),
        *(cfg.get('custom_hooks') or []),
    ]
    yield from (hook for hook in hooks if isinstance(hook, dict))


def _name(hook: Mapping[str, Any]) -> str:
    kind = hook.get('type', '')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]
