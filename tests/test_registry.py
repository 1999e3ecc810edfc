# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Registries: every component builds by `mmfakd.Name`, from any scope."""

import inspect

import mmengine.registry
import pytest
from mmengine.registry import DefaultScope, Registry, init_default_scope

import mmfakd.registry
from mmfakd.registry import DATASETS, HOOKS, MODELS
from mmfakd.utils.register_all_modules import register_all_modules

REGISTRIES = {
    name: registry
    for name, registry in vars(mmfakd.registry).items()
    if isinstance(registry, Registry)
}


def test_every_registry_of_mmengine_has_a_child():
    """A missing child makes MMEngine warn at each build in scope mmfakd."""
    roots = {
        name
        for name, registry in vars(mmengine.registry).items()
        if isinstance(registry, Registry)
    }
    assert set(REGISTRIES) == roots


@pytest.mark.parametrize('name', sorted(REGISTRIES))
def test_child_has_scope_parent_and_build_function(name):
    registry, parent = REGISTRIES[name], getattr(mmengine.registry, name)
    assert registry.scope == 'mmfakd'
    assert registry.parent is parent
    assert registry.name == parent.name
    # mmfakd/compat/optimizer_constructors.py may have come in between.
    assert inspect.unwrap(registry.build_func) is inspect.unwrap(parent.build_func)
    # Without a location MMEngine would import all of mmfakd at the first look-up.
    assert registry._locations in (
        ['mmfakd.models'],
        ['mmfakd.datasets'],
        ['mmfakd.engine'],
    )


def test_every_component_is_found_from_the_root_in_a_fresh_interpreter(run_python):
    """No import of mmfakd, no custom_imports: the prefix alone finds it."""
    pytest.importorskip('mmpretrain')
    register_all_modules(init_default_scope=False)
    components = [
        (name, component)
        for name, registry in REGISTRIES.items()
        for component in registry.module_dict
    ]
    assert {name for name, _ in components} >= {'MODELS', 'DATASETS', 'HOOKS'}
    run_python(f"""
import sys
import mmengine.registry
assert not any(name.startswith('mmfakd') for name in sys.modules)
missing = [
    (registry, name)
    for registry, name in {components!r}
    if getattr(mmengine.registry, registry).get('mmfakd.' + name) is None
]
assert not missing, missing
""")


@pytest.mark.parametrize('scope', [None, 'mmengine', 'mmfakd', 'unknown'])
def test_component_builds_in_a_fresh_interpreter_from_any_scope(scope, run_python):
    run_python(f"""
from mmengine.registry import MODELS, init_default_scope
if {scope!r}:
    init_default_scope({scope!r})
layer = MODELS.build(
    dict(type='mmfakd.FrequencyAttention', in_channels=2, out_channels=3, size=8)
)
assert type(layer).__module__.startswith('mmfakd.models.'), type(layer)
""")


@pytest.mark.parametrize('scope', ['mmrazor', 'mmpretrain', 'mmdet'])
def test_component_builds_from_the_scope_of_another_library(scope):
    """mmrazor's scope needs mmfakd imported first: without it mmrazor fails."""
    if scope == 'mmdet':
        pytest.importorskip('mmcv.ops')
    pytest.importorskip(scope)
    init_default_scope(scope)
    layer = mmengine.registry.MODELS.build(
        dict(type='mmfakd.FrequencyAttention', in_channels=2, out_channels=3, size=8)
    )
    assert isinstance(layer, MODELS.get('FrequencyAttention'))


def test_own_scope_finds_mmengine_and_does_not_warn(run_python):
    """default_scope='mmfakd' covers whatever a Runner builds."""
    process = run_python("""
import torch
from mmengine.registry import *
init_default_scope('mmfakd')
model = MODELS.build(dict(type='BaseDataPreprocessor'))
layer = MODELS.build(
    dict(type='FrequencyAttention', in_channels=2, out_channels=3, size=8)
)
PARAM_SCHEDULERS.build(
    dict(type='ConstantLR', optimizer=torch.optim.SGD(layer.parameters(), lr=1))
)
HOOKS.build(dict(type='IterTimerHook'))
VISBACKENDS.build(dict(type='LocalVisBackend', save_dir='.'))
LOG_PROCESSORS.build(dict(type='LogProcessor'))
""")
    assert 'Failed to search registry' not in process.stdout + process.stderr


def test_importing_mmfakd_imports_no_component(run_python):
    run_python("""
import sys
import mmfakd, mmfakd.registry
heavy = ('mmfakd.models', 'mmfakd.datasets', 'mmfakd.engine', 'mmcv', 'mmpretrain',
         'mmdet', 'mmrazor', 'torchvision', 'sklearn', 'matplotlib')
assert not [name for name in heavy if name in sys.modules]
""")


def test_register_all_modules_sets_the_scope_only_when_asked():
    pytest.importorskip('mmpretrain')
    register_all_modules(init_default_scope=False)
    assert DefaultScope.get_current_instance() is None
    assert MODELS.module_dict and DATASETS.module_dict and HOOKS.module_dict
    register_all_modules()
    assert DefaultScope.get_current_instance().scope_name == 'mmfakd'


def test_register_all_modules_replaces_another_scope():
    pytest.importorskip('mmpretrain')
    init_default_scope('mmengine')
    register_all_modules()
    assert DefaultScope.get_current_instance().scope_name == 'mmfakd'


def test_scopes_do_not_leak_between_tests():
    """The two tests above left a default scope; see conftest.py."""
    assert DefaultScope.get_current_instance() is None
