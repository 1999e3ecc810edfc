# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Recorders and deliveries have either name, whatever the default scope."""

import pytest
from mmengine.registry import DefaultScope
from mmrazor.models.task_modules import (
    DistillDeliveryManager,
    FunctionOutputsDelivery,
    MethodOutputsDelivery,
    ModuleOutputsRecorder,
    RecorderManager,
)
from mmrazor.registry import TASK_UTILS

from mmfakd.compat import allow_mmrazor_types

FUNCTION = dict(max_keep_data=1, func_path='mmrazor.models.utils.add_prefix')
SCOPES = ('mmpretrain', 'mmfakd', 'mmrazor', 'mmengine')


@pytest.fixture(params=SCOPES)
def scope(request):
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


@pytest.mark.parametrize('prefix', ['', 'mmrazor.'])
@pytest.mark.parametrize('own', [{}, dict(_scope_='mmrazor'), dict(_scope_='mmfakd')])
def test_both_names_of_both_kinds(prefix, own, scope):
    cfg = dict(FUNCTION, type=f'{prefix}FunctionOutputs', **own)
    given = dict(d=cfg)
    (delivery,) = DistillDeliveryManager(given).deliveries.values()
    assert type(delivery) is FunctionOutputsDelivery
    # The config of the training stays as it was written.
    assert given == dict(d=dict(FUNCTION, type=f'{prefix}FunctionOutputs', **own))
    cfg = dict(type=f'{prefix}ModuleOutputs', source='backbone', **own)
    (recorder,) = RecorderManager(recorders=dict(r=cfg)).recorders.values()
    assert type(recorder) is ModuleOutputsRecorder


def test_a_method_is_delivered():
    cfg = dict(
        type='mmrazor.MethodOutputs',
        max_keep_data=1,
        method_path='mmengine.model.BaseModule.init_weights',
    )
    manager = DistillDeliveryManager(deliveries=dict(d=cfg))
    assert type(manager.deliveries['d']) is MethodOutputsDelivery


@pytest.mark.parametrize('configs', [None, {}])
def test_none_at_all(configs):
    assert DistillDeliveryManager(configs).deliveries == {}
    assert RecorderManager(configs).recorders == {}
    assert DistillDeliveryManager().deliveries == RecorderManager().recorders == {}


@pytest.mark.parametrize(
    ('cfg', 'given'),
    [
        (dict(type='FunctionOutput'), "type='FunctionOutput'"),
        (dict(type='mmdet.FunctionOutputs'), "type='mmdet.FunctionOutputs'"),
        (dict(type=FunctionOutputsDelivery), 'type=<class .*FunctionOutputsDelivery'),
        (dict(func_path='a.b'), "{'func_path': 'a.b'}"),
        ('FunctionOutputs', "'FunctionOutputs'"),
    ],
)
def test_another_delivery_is_refused_in_words(cfg, given, scope):
    with pytest.raises(
        ValueError,
        match=f"distill_deliveries, 'd': got {given}.*; expected .* one of the types "
        "'mmrazor.FunctionOutputs', 'mmrazor.MethodOutputs'",
    ):
        DistillDeliveryManager(dict(d=cfg))


def test_another_recorder_is_told_with_near_names(scope):
    with pytest.raises(KeyError, match="Near names: 'mmrazor.ModuleOutputs'"):
        RecorderManager(dict(r=dict(type='ModuleOutput', source='backbone')))


def test_a_class_of_the_scope_itself_goes_first(monkeypatch):
    """As it did before there was this shim."""
    registry = TASK_UTILS.root.children['mmfakd']

    class Own(FunctionOutputsDelivery):
        pass

    class OwnRecorder(ModuleOutputsRecorder):
        pass

    monkeypatch.setitem(registry._module_dict, 'FunctionOutputsDelivery', Own)
    monkeypatch.setitem(registry._module_dict, 'ModuleOutputsRecorder', OwnRecorder)
    with DefaultScope.overwrite_default_scope('mmfakd'):
        d = DistillDeliveryManager(dict(d=dict(FUNCTION, type='FunctionOutputs')))
        r = RecorderManager(dict(r=dict(type='ModuleOutputs', source='backbone')))
    assert type(d.deliveries['d']) is Own
    assert type(r.recorders['r']) is OwnRecorder


def test_shim_is_repeatable():
    before = DistillDeliveryManager.__init__, RecorderManager.__init__
    allow_mmrazor_types()
    assert (DistillDeliveryManager.__init__, RecorderManager.__init__) == before
