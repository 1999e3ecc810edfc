# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The hooks without which a training can lose something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmfakd.model_zoo.type_names import short_name, type_name

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
    first_step='mmfakd.FirstStepHook',
    epoch_seed='mmfakd.EpochSeedHook',
)
# Say what would show late or never; what they need stands in no config.
CHECKS = dict(
    check_data='mmfakd.CheckDataHook', check_learning='mmfakd.CheckLearningHook'
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
_STOCK_CHECKPOINT = ('CheckpointHook', 'SafeCheckpointHook')
# As many checkpoints as an interrupted training may need, beside the best one.
KEPT_CHECKPOINTS = 3
# Metrics of which MMEngine knows which scores are the better ones -> `save_best`.
_BEST_OF = dict(
    Accuracy='auto',
    SingleLabelMetric='auto',
    MultiLabelMetric='auto',
    AveragePrecision='auto',
    CocoMetric='auto',
    VOCMetric='auto',
    IoUMetric='mIoU',
)


def distillation_hooks(cfg: Config) -> dict[str, dict[str, Any]]:
    """Choose what a distillation adds to the default hooks of its student's config.

    Args:
        cfg (Config): The student's config.

    Returns:
        dict[str, dict]: Name -> config. What the student's config says itself stays:
        a hook among its custom hooks, a checkpoint hook of another class or none, and
        the arguments of MMEngine's.
    """
    custom = {_name(hook) for hook in cfg.get('custom_hooks') or ()}
    hooks: dict[str, dict[str, Any]] = {
        name: dict(type=kind)
        for name, kind in DISTILLATION_HOOKS.items()
        if kind.rpartition('.')[2] not in custom
    }
    hooks['checkpoint'] = checkpoint_hook(cfg)
    if not hooks['checkpoint']:
        del hooks['checkpoint']
    if not loops_by_epoch(cfg):
        hooks.pop('epoch_seed', None)
    return hooks


def loops_by_epoch(cfg: Config) -> bool:
    """Tell whether a config's training counts epochs.

    Args:
        cfg (Config): The config.

    Returns:
        bool: Whether it does; in an iteration based loop the epoch stays 0.
    """
    loop = cfg.get('train_cfg') or {}
    known = _counts_as_mmengine(loop)
    if known is not None:
        return known
    name = type_name(loop)
    if 'Epoch' in name or 'Iter' in name:
        return 'Epoch' in name
    if 'by_epoch' in loop:
        return bool(loop['by_epoch'])
    # As `counts_iterations` tells a loop of one's own.
    return loop.get('max_epochs', 1) != 1 or 'max_iters' not in loop


def loops_as_mmengine_by_epoch(cfg: Config) -> bool:
    """Tell whether a config's loop counts epochs and is MMEngine's, or one of its kind.

    Args:
        cfg (Config): The config.

    Returns:
        bool: Whether it is; False for a loop of one's own that only has such a name.
    """
    return bool(_counts_as_mmengine(cfg.get('train_cfg') or {}))


def _counts_as_mmengine(loop: Mapping[str, Any]) -> bool | None:
    """Whether a loop counts epochs, if it is MMEngine's or one of its kind."""
    # The class decides, as `by_epoch` beside it may be inherited.
    if not (kind := loop.get('type')):
        return bool(loop.get('by_epoch'))
    found = _loop_class(kind)
    if issubclass(found, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return issubclass(found, EpochBasedTrainLoop)
    return None


def count_epochs(cfg: Config) -> int | None:
    """Count the epochs of a config's training.

    Args:
        cfg (Config): The config.

    Returns:
        int, optional: They; 1 in an iteration based loop, None where it does not say.
    """
    loop = cfg.get('train_cfg') or {}
    return loop.get('max_epochs') if not loop or loops_by_epoch(cfg) else 1


def _loop_class(kind: Any) -> type:
    """The class of a loop; ``object`` where it is not to be had here."""
    try:
        found = LOOPS.get(kind) if isinstance(kind, str) else kind
    # Whatever its package raises: a training that needs the class says it.
    except Exception:
        return object
    return found if isinstance(found, type) else object


def checkpoint_hook(cfg: Config) -> dict[str, Any]:
    """Choose what the checkpoint hook of a student's config lacks.

    Args:
        cfg (Config): The student's config.

    Returns:
        dict: What is to join it: the last three checkpoints and the best one are kept
        where it says nothing of that. Empty where the hook is off or of a class that
        is not MMEngine's.
    """
    defaults = cfg.get('default_hooks') or {}
    own = defaults.get('checkpoint', {})
    if own is None or (own.get('type') and _name(own) not in _STOCK_CHECKPOINT):
        return {}
    hook: dict[str, Any] = dict(type=TRAINING_HOOKS['checkpoint'])
    if not own:
        # As MMEngine has it where a config says nothing.
        hook['interval'] = 1
    if 'max_keep_ckpts' not in own:
        hook['max_keep_ckpts'] = KEPT_CHECKPOINTS
    best = _best_of(cfg)
    if best and 'save_best' not in own:
        hook['save_best'] = best
    return hook


def _best_of(cfg: Config) -> str | None:
    """What a training's validation tells the best checkpoint by, if it is known."""
    evaluators = cfg.get('val_evaluator')
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    if not evaluators or not cfg.get('val_dataloader'):
        return None
    metric = evaluators[0]
    best = _BEST_OF.get(_name(metric))
    if best == 'auto' and isinstance(metric, Mapping) and metric.get('classwise'):
        # Its first score is that of the first class.
        return None
    return best


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
    wanted = dict(TRAINING_HOOKS, **CHECKS)
    if 'teacher' in (cfg.get('model') or {}):
        wanted['first_step'] = DISTILLATION_HOOKS['first_step']
    for key, kind in wanted.items():
        if kind.rpartition('.')[2] not in has:
            hooks.setdefault(key, dict(type=kind))


def set_on_hooks(cfg: Config, key: str, **arguments: Any) -> None:
    """Set arguments of one of our hooks, wherever a config has it.

    Args:
        cfg (Config): The config of a training, changed in place: without such a hook it
            gets one.
        key (str): Its name in ``TRAINING_HOOKS``.
        **arguments: What is set.
    """
    kind = TRAINING_HOOKS[key]
    if not any(_name(hook) == kind.rpartition('.')[2] for hook in hook_configs(cfg)):
        cfg.default_hooks = cfg.get('default_hooks') or {}
        cfg.default_hooks[key] = dict(type=kind)
    for hook in hook_configs(cfg):
        if _name(hook) == kind.rpartition('.')[2]:
            hook.update(arguments)


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


def _name(hook: Any) -> str:
    kind = hook.get('type', '') if isinstance(hook, Mapping) else type(hook)
    return short_name(kind)
