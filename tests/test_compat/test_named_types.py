# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is registered may be named, as MMEngine dumps it, too; what reads files not."""

import re
from importlib import import_module
from inspect import isclass

import mmengine
import mmengine.registry
import pytest
from mmengine.registry import Registry

from mmfakd.compat import risky_values
from mmfakd.compat.named_types import find_risk_of_type, is_openmmlab

PARTS = ('models', 'datasets', 'engine', 'evaluation', 'visualization')
REFUSED = {
    'it runs files': r'mmengine\.(\w+\.)*(Flexible)?Runner',
    'it has no scope, and a class': r'mmengine\.[a-z]\w+',
    'it stands for what is not installed': r'.*<locals>.*',
    'mmrazor has no quantization with this torch': r'torch\.ao\.quantization\..*',
}


def registered(registry):
    """Objects of a registry and its children, with the names that configs have."""
    for name, found in registry._module_dict.items():
        if is_openmmlab(found.__module__) or found.__module__.startswith('torch.'):
            yield f'{found.__module__}.{found.__qualname__}'
            yield f'{registry.scope}.{name}'
    for child in registry._children.values():
        yield from registered(child)


@pytest.mark.parametrize('library', ['mmpretrain', 'mmdet', 'mmseg', 'mmrazor'])
def test_what_is_registered_may_be_named(library):
    pytest.importorskip(library)
    for part in PARTS:
        if not (library == 'mmrazor' and part in ('evaluation', 'visualization')):
            import_module(f'{library}.{part}')
    if library == 'mmrazor':
        import_module('mmrazor.implementations')
    roots = [r for r in vars(mmengine.registry).values() if isinstance(r, Registry)]
    names = {name for root in roots for name in registered(root)}
    own = [name for name in names if name.startswith((f'{library}.', 'mmengine.'))]
    assert len(own) > 200
    meant = '|'.join(REFUSED.values())
    risks = {name: find_risk_of_type(name) for name in names}
    found = {name: risk for name, risk in risks.items() if risk}
    assert {n: r for n, r in found.items() if not re.fullmatch(meant, n)} == {}


@pytest.mark.parametrize(
    'module', [mmengine, mmengine.fileio, mmengine.fileio.backends]
)
def test_what_reads_files_may_not(module):
    kinds = [
        name
        for name, found in vars(module).items()
        if isclass(found) and found.__module__.startswith('mmengine.fileio.')
    ]
    assert len(kinds) > 5
    for name in kinds:
        assert find_risk_of_type(f'{module.__name__}.{name}') == 'reads files'


def test_a_name_is_looked_for_once(monkeypatch):
    asked = []
    monkeypatch.setattr(risky_values, 'is_model_part', lambda k: asked.append(k) or 1)
    kind = 'mmpretrain.datasets.PackInputs'
    risky_values.find_risky_value(dict(model=[dict(type=kind)] * 3))
    assert asked == [kind]
