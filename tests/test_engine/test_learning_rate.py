# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A new rate in the middle of a schedule, against a schedule that began with it."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmfakd.engine.learning_rate import (
    base_rates,
    changed_groups,
    current_state,
    optimizer_settings,
    rate_factors,
    restart_optimizer,
    scale_rates,
    scheduler_fields,
    scheduler_kinds,
    set_rate,
)

WARMUP = dict(type='LinearLR', start_factor=0.1, begin=0, end=6, by_epoch=False)
SCHEDULES = dict(
    none=[],
    multistep=[WARMUP, dict(type='MultiStepLR', milestones=[9, 14], by_epoch=False)],
    cosine=[
        WARMUP,
        dict(
            type='CosineAnnealingLR',
            begin=6,
            end=20,
            T_max=14,
            eta_min=0.002,
            by_epoch=False,
        ),
    ],
    cosine_ratio=[dict(type='CosineAnnealingLR', T_max=7, eta_min_ratio=0.1)],
    restarts=[
        dict(
            type='CosineRestartLR', periods=[7, 13], restart_weights=[1, 0.5], eta_min=0
        )
    ],
    restarts_min=[
        dict(type='CosineRestartLR', periods=[9], restart_weights=[1], eta_min=0.01)
    ],
    poly=[dict(type='PolyLR', eta_min=0.003, power=0.9, end=20)],
    step=[dict(type='StepLR', step_size=4, gamma=0.3)],
    exponential=[dict(type='ExponentialLR', gamma=0.9)],
    constant=[dict(type='ConstantLR', factor=0.2, end=8)],
    one_cycle=[dict(type='OneCycleLR', eta_max=0.4, total_steps=20)],
    plateau=[
        dict(type='ReduceOnPlateauLR', monitor='loss', patience=1, min_value=0.01)
    ],
    quadratic=[dict(type='mmdet.QuadraticWarmupLR', begin=0, end=8, by_epoch=False)],
)


def config(schedule, rate=0.1):
    optimizer = dict(type='SGD', lr=rate, momentum=0.9)
    return Config(
        dict(
            optim_wrapper=dict(optimizer=optimizer),
            param_scheduler=copy.deepcopy(schedule),
        )
    )


def built(cfg):
    """What a runner has of optimizer and schedulers; the second layer learns slower."""
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    rate = cfg.optim_wrapper.optimizer.lr
    groups = [
        dict(params=list(layers[0].parameters())),
        dict(params=list(layers[1].parameters()), lr=0.1 * rate),
    ]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=rate, momentum=0.9))
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s, optimizer=wrapper)) for s in cfg.param_scheduler
    ]
    return SimpleNamespace(optim_wrapper=wrapper, param_schedulers=schedulers)


def rates(runner, steps):
    """Rates of all groups in each of the next steps."""
    found = []
    for _ in range(steps):
        found.append([group['lr'] for group in runner.optim_wrapper.param_groups])
        runner.optim_wrapper.step()
        for scheduler in runner.param_schedulers:
            plateau = 'Plateau' in type(scheduler).__name__
            scheduler.step(*([dict(loss=1.0)] if plateau else []))
    return torch.tensor(found, dtype=torch.float64)


def resumed(runner, cfg):
    """As MMEngine resumes."""
    state = copy.deepcopy(current_state(runner))
    new = built(cfg)
    wrapper_state = copy.deepcopy(runner.optim_wrapper.state_dict())
    new.optim_wrapper.load_state_dict(wrapper_state)
    for scheduler, saved in zip(new.param_schedulers, state['param_schedulers']):
        scheduler.load_state_dict(saved)
    return new, state


@pytest.mark.parametrize('done', [0, 3, 8, 13])
@pytest.mark.parametrize('name', SCHEDULES)
def test_schedule_goes_on_as_if_it_had_begun_with_the_rate(name, done):
    old, new = config(SCHEDULES[name]), config(SCHEDULES[name])
    set_rate(new, 0.025)
    assert new.optim_wrapper.optimizer.lr == 0.025
    fresh = rates(built(new), 20)
    before = built(old)
    rates(before, done)
    runner, then = resumed(before, new)
    now = current_state(built(new))['optimizer']
    scale_rates(runner, rate_factors(then['optimizer'], now))
    torch.testing.assert_close(rates(runner, 20 - done), fresh[done:])
    # The second group keeps its multiple.
    torch.testing.assert_close(fresh[:, 1] <= fresh[:, 0], torch.full((20,), True))


def test_schedulers_are_known_by_their_state():
    """Whatever they have done; and none is taken for another."""
    kinds = {}
    for schedule in SCHEDULES.values():
        runner = built(config(schedule))
        names = scheduler_kinds(runner.param_schedulers)
        assert names == {'': [s['type'].rpartition('.')[2] for s in schedule]}
        fresh = scheduler_fields(current_state(runner)['param_schedulers'])
        rates(runner, 13)
        assert scheduler_fields(current_state(runner)['param_schedulers']) == fresh
        for name, fields in zip(names[''], fresh['']):
            assert kinds.setdefault(fields, name) == name


def test_without_it_the_old_rate_wins():
    old, new = (config(SCHEDULES['cosine'], rate) for rate in (0.1, 0.025))
    before = built(old)
    rates(before, 8)
    runner, _ = resumed(before, new)
    torch.testing.assert_close(rates(runner, 12), rates(before, 12))


def test_several_optimizers():
    parts = {name: built(config(SCHEDULES['cosine'])) for name in ('one', 'two')}
    runner = SimpleNamespace(
        optim_wrapper=OptimWrapperDict(
            **{name: part.optim_wrapper for name, part in parts.items()}
        ),
        param_schedulers={name: part.param_schedulers for name, part in parts.items()},
    )
    assert base_rates(current_state(runner)['optimizer']) == {'one': 0.1, 'two': 0.1}
    scale_rates(runner, {'one': 0.5})
    rate = {name: part.optim_wrapper.param_groups[0] for name, part in parts.items()}
    assert rate['one']['lr'] == rate['two']['lr'] / 2
    assert runner.param_schedulers['one'][1].base_values[0] == 0.05
    settings = optimizer_settings(current_state(runner))
    assert settings['one.optimizer.momentum'] == 0.9
    assert settings['two.param_scheduler.1.T_max'] == 14


def test_settings_are_those_that_steps_do_not_change():
    runner = built(config(SCHEDULES['multistep']))
    before = optimizer_settings(current_state(runner))
    assert before['optimizer.momentum'] == 0.9 and 'optimizer.lr' not in before
    assert before['param_scheduler.1.milestones'] == {9: 1, 14: 1}
    rates(runner, 12)
    assert optimizer_settings(current_state(runner)) == before


@pytest.mark.parametrize('name', ['none', 'cosine_ratio', 'one_cycle'])
def test_new_optimizer_within_a_schedule(name):
    before = built(config(SCHEDULES[name]))
    rates(before, 8)
    # A layer more, as another model has.
    new = built(config(SCHEDULES[name]))
    wrapper = new.optim_wrapper
    wrapper.optimizer.add_param_group(
        dict(wrapper.param_groups[0], params=list(nn.Linear(2, 2).parameters()))
    )
    state = copy.deepcopy(current_state(before))
    for scheduler, saved in zip(new.param_schedulers, state['param_schedulers']):
        scheduler.load_state_dict(saved)
    restart_optimizer(new, state['optimizer'])
    old, new = rates(before, 12), rates(new, 12)
    torch.testing.assert_close(new[:, [0, 1, 3]], old)
    torch.testing.assert_close(new[:, 2], old[:, 0])


def test_set_rate_scales_what_is_absolute():
    cfg = config([*SCHEDULES['cosine'], *SCHEDULES['one_cycle']])
    cfg.param_scheduler.append(dict(type='CosineAnnealingMomentum', eta_min=0.8))
    set_rate(cfg, 0.05)
    scheduled = cfg.param_scheduler
    assert scheduled[1].eta_min == 0.001 and scheduled[2].eta_max == 0.2
    assert scheduled[3]['eta_min'] == 0.8
    hook = dict(type='mmfakd.LearningRateHook', from_config=True)
    assert cfg.default_hooks.learning_rate == hook


def test_set_rate_reaches_the_hook_that_there_is():
    cfg = config([])
    cfg.custom_hooks = [dict(type='mmfakd.LearningRateHook')]
    set_rate(cfg, 0.05)
    assert cfg.custom_hooks[0].from_config is True and 'default_hooks' not in cfg


def test_groups_that_do_not_learn_tell_nothing():
    """As `lr_mult=0` makes them, in either of two states."""

    def state(*rates):
        return dict(param_groups=[dict(lr=rate) for rate in rates])

    assert rate_factors(state(0.0, 0.0, 0.2), state(0.0, 0.1, 0.1)) == {'': 0.5}
    assert rate_factors(state(0.1, 0.2), state(0.0, 0.1)) == {'': 0.5}
    assert rate_factors(state(0.0, 0.0), state(0.1, 0.1)) is None


def multiples(*pairs, rate=0.1, decay=0.01, scale=1.0):
    """State of an optimizer whose groups have (lr_mult, decay_mult)."""
    groups = [
        dict(params=[0], lr=scale * rate * lr, weight_decay=decay * own)
        for lr, own in pairs
    ]
    base = dict(lr=rate, weight_decay=decay)
    return dict(param_groups=groups, base_param_settings=base)


PAIRS = [(1, 1), (1, 0), (10, 1), (0, 1)]


def test_multiples_that_stay():
    """Whatever the base rate and the base decay are."""
    state = multiples(*PAIRS)
    for other in (
        multiples(*PAIRS),
        multiples(*PAIRS, rate=0.03, decay=0.3),
        multiples(*PAIRS, decay=0.0),
        multiples(*PAIRS, rate=0.0),
        # As MMEngine scales, which leaves the base as it is.
        multiples(*PAIRS, scale=0.25),
    ):
        assert changed_groups(state, other) == changed_groups(other, state) == []
    for part in (state, other):
        # As MMEngine had it once.
        del part['base_param_settings']
    assert changed_groups(state, other) == []
    # An optimizer without weight decay, and one with one group.
    group = dict(params=[0], lr=0.1)
    assert changed_groups(dict(param_groups=[group]), dict(param_groups=[group])) == []
    assert changed_groups(multiples((1, 1)), multiples((1, 1), rate=1, decay=1)) == []


@pytest.mark.parametrize('changed', [dict(), dict(rate=0.3), dict(scale=0.25)])
def test_multiples_that_changed(changed):
    state = multiples(*PAIRS)
    other = multiples((1, 1), (1, 0), (1, 1), (2, 0), **changed)
    found = changed_groups(dict(one=state), dict(one=other))
    assert [change[:3] for change in found] == [
        ('one', 2, 'lr'),
        ('one', 3, 'lr'),
        ('one', 3, 'weight_decay'),
    ]
    assert found[0].then == 1.0 and found[0].now == other['param_groups'][2]['lr']


def test_a_decay_that_changed_in_all_groups():
    """Its base is never scaled."""
    found = changed_groups(multiples((1, 1), (1, 0)), multiples((1, 5), (1, 0)))
    assert found == [('', 0, 'weight_decay', 0.01, 0.05)]
    assert changed_groups(multiples((1, 0), (1, 0)), multiples((1, 0), (1, 1)))


@pytest.mark.parametrize('name', SCHEDULES)
def test_schedules_change_no_multiples(name):
    before = built(config(SCHEDULES[name]))
    rates(before, 13)
    runner, then = resumed(before, config(SCHEDULES[name], 0.025))
    now = current_state(built(config(SCHEDULES[name], 0.025)))
    assert changed_groups(then['optimizer'], now['optimizer']) == []
    scale_rates(runner, {'': 0.25})
    then = current_state(runner)
    assert changed_groups(then['optimizer'], now['optimizer']) == []


@pytest.mark.parametrize('rate', [0, -0.1, float('inf'), float('nan')])
def test_rate_has_to_be_positive(rate):
    with pytest.raises(ValueError, match=f'--lr {rate}: expected a positive number'):
        set_rate(config([]), rate)


def test_several_optimizers_have_no_one_rate():
    part = dict(optimizer=dict(type='SGD', lr=0.1))
    cfg = Config(dict(optim_wrapper=dict(constructor='C', one=part, two=part)))
    with pytest.raises(ValueError, match='Set the rate of each with --cfg-options'):
        set_rate(cfg, 0.1)
