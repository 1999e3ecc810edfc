# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Every training has the hooks that save and resume."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmfakd.engine.safety import (
    CHECKS,
    DISTILLATION_HOOKS,
    TRAINING_HOOKS,
    add_safety_hooks,
    count_epochs,
    distillation_hooks,
    drop_absent_hooks,
    hook_configs,
    loops_by_epoch,
    set_on_hooks,
)


@LOOPS.register_module(force=True)
class PatientLoop(EpochBasedTrainLoop):
    """A loop of the user's own."""


@LOOPS.register_module(force=True)
class EpochlessLoop(IterBasedTrainLoop):
    """Another one."""


# What a training by the command has.
ADDED = dict(TRAINING_HOOKS, **CHECKS)


def types(cfg):
    return {name: hook and hook['type'] for name, hook in cfg.default_hooks.items()}


def test_a_config_without_any():
    cfg = Config({})
    add_safety_hooks(cfg)
    assert types(cfg) == ADDED
    assert cfg.default_hooks.checkpoint.interval == 1


@pytest.mark.parametrize(
    'kind', ['CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook]
)
def test_the_stock_hook_keeps_its_arguments(kind):
    own = dict(type=kind, interval=5, save_best='auto')
    cfg = Config(dict(default_hooks=dict(checkpoint=own, timer=dict(type='Timer'))))
    add_safety_hooks(cfg)
    expected = dict(type='mmfakd.SafeCheckpointHook', interval=5, save_best='auto')
    assert cfg.default_hooks.checkpoint == expected
    assert types(cfg).keys() == ADDED.keys() | {'timer'}


def test_what_is_there_is_not_added_again():
    """Neither under another name nor among the custom hooks."""
    mine = dict(type='mmfakd.PreemptionHook', time_limit=60)
    cfg = Config(
        dict(
            default_hooks=dict(
                checkpoint=None, going_on=dict(type='mmfakd.ResumeHook')
            ),
            custom_hooks=[mine],
        )
    )
    add_safety_hooks(cfg)
    assert cfg.default_hooks.checkpoint is None
    assert cfg.custom_hooks == [mine]
    assert 'preemption' not in cfg.default_hooks and 'resume' not in cfg.default_hooks


def test_a_hook_can_be_turned_off():
    """MMEngine accepts None for the six hooks that it adds itself."""
    off = dict(preemption=None, timer=None)
    cfg = Config(dict(default_hooks=dict(off, resume=dict(type='mmfakd.ResumeHook'))))
    add_safety_hooks(cfg)
    drop_absent_hooks(cfg)
    assert 'preemption' not in cfg.default_hooks
    assert cfg.default_hooks.timer is None and cfg.default_hooks.resume
    drop_absent_hooks(Config({}))


@pytest.mark.parametrize(
    ('loop', 'epochs'),
    [
        (dict(by_epoch=True), True),
        (dict(by_epoch=False), False),
        (dict(type='EpochBasedTrainLoop'), True),
        (dict(type='mine.Loop', by_epoch=True), True),
        # What it inherits from a base does not make it count epochs.
        (dict(type='IterBasedTrainLoop', by_epoch=True), False),
        (dict(type='mmengine.runner.loops.EpochBasedTrainLoop'), True),
        # The class tells, not the letters in its name.
        (dict(type='PatientLoop', max_epochs=4), True),
        (dict(type='PatientLoop', max_epochs=1, by_epoch=False), True),
        (dict(type=PatientLoop), True),
        (dict(type='EpochlessLoop', max_iters=4), False),
        # Of one of no known kind its lengths do.
        (dict(type='mine.Loop', max_epochs=4), True),
        (dict(type='mine.Loop', rounds=4), True),
        (dict(type='mine.Loop', max_iters=4), False),
        (dict(type='mine.Loop', max_epochs=4, by_epoch=False), False),
        (dict(type='mine.EpochLoop'), True),
        (dict(type='mine.IterLoop', by_epoch=True), False),
    ],
)
def test_what_counts_epochs(loop, epochs):
    assert loops_by_epoch(Config(dict(train_cfg=loop))) is epochs


def test_the_epochs_of_a_training():
    iterations = dict(type='IterBasedTrainLoop', max_iters=9)
    loops = dict(by_epoch=True, max_epochs=3), iterations, dict(by_epoch=True), None
    counts = [count_epochs(Config(dict(train_cfg=loop))) for loop in loops]
    assert counts == [3, 1, None, None]


def test_what_a_distillation_adds():
    epochs = dict(train_cfg=dict(by_epoch=True), default_hooks=dict(checkpoint=dict()))
    hooks = distillation_hooks(Config(dict(epochs, default_hooks={})))
    assert {name: hook['type'] for name, hook in hooks.items()} == DISTILLATION_HOOKS
    assert hooks['checkpoint']['interval'] == 1
    stock = Config(dict(default_hooks=dict(checkpoint=dict(interval=10))))
    stock.train_cfg = dict(type='IterBasedTrainLoop', max_iters=10)
    hooks = distillation_hooks(stock)
    assert 'interval' not in hooks['checkpoint'] and 'epoch_seed' not in hooks


def test_shipped_configs_have_them():
    """Both lists, which no config can share with a base of its own."""
    base = Path(__file__).parents[2] / 'configs/_base_'
    hooks = Config.fromfile(base / 'distill_hooks.py').distill_hooks
    assert {name: hook['type'] for name, hook in hooks.items()} == DISTILLATION_HOOKS
    runtime = types(Config.fromfile(base / 'default_runtime.py'))
    assert {name: runtime[name] for name in DISTILLATION_HOOKS} == DISTILLATION_HOOKS


@pytest.mark.parametrize('where', ['default_hooks', 'custom_hooks', None])
def test_an_option_reaches_the_hook_wherever_it_is(where):
    hook = dict(type='mmfakd.ProvenanceHook')
    places = dict(default_hooks=dict(mine=hook), custom_hooks=[hook])
    cfg = Config({where: places[where]} if where else dict(default_hooks=None))
    set_on_hooks(cfg, 'provenance', allow_changes=True)
    add_safety_hooks(cfg)
    found = [h for h in hook_configs(cfg) if h['type'] == hook['type']]
    assert found == [dict(hook, allow_changes=True)]
