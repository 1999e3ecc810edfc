# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A distilled student's parameters keep the settings that they have alone.

Constructors of optimizer wrappers go by the names of parameters: layer-wise decay of
mmpretrain, mmdet and mmsegmentation by ``backbone.layers.3``, ``custom_keys`` by any
part of a name. In a distillation these names begin with ``architecture.``, and what is
recognised by its beginning is no longer: without a word, all layers learn at one rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

_STUDENT, _DISTILLER = 'architecture', 'distiller'


def name_students_as_alone() -> None:
    """Let constructors of optimizer wrappers see a student as they do alone.

    A constructor that is given a distillation (a model with ``architecture`` and
    ``distiller``, those of mmrazor included) builds the optimizer of the student
    itself. The parameters of the distiller join it in groups of their own, by the rules
    of ``DefaultOptimWrapperConstructor``:

    - They have the base learning rate. A key of ``custom_keys`` that begins with
      ``distiller``, or matches no parameter of the student, applies to them.
    - Of a key that matches parameters of the student, such as ``norm``, they take
      ``decay_mult`` alone, and nothing if it names a module of the student, such as
      ``backbone``.

    Keys may still begin with ``architecture.``. Without ``paramwise_cfg`` all
    parameters stand in one group, as in MMEngine. Calling this again changes nothing.
    """
    from mmengine.optim.optimizer.default_constructor import (
        DefaultOptimWrapperConstructor,
    )
    from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as registry

    _adapt(DefaultOptimWrapperConstructor)
    build = registry.build_func
    if hasattr(build, 'adapts'):
        return

    # Some constructors are of no common class.
    @wraps(build)
    def build_adapted(*args: Any, **kwargs: Any) -> Any:
        constructor = build(*args, **kwargs)
        _adapt(type(constructor))
        return constructor

    build_adapted.adapts = True  # type: ignore[attr-defined]
    registry.build_func = build_adapted


def _adapt(kind: Any) -> None:
    for owner in kind.__mro__[:-1]:
        call = vars(owner).get('__call__')
        if call is not None and not hasattr(call, 'adapts'):
            owner.__call__ = _student_as_alone(call)


def _student_as_alone(call: Callable) -> Callable:
    """Let one constructor build what it builds for the student, and add the rest."""

    @wraps(call)
    def construct(self: Any, model: Any) -> Any:
        # What distributes a model keeps it as its `module`.
        whole = model._modules.get('module', model)
        if not {_STUDENT, _DISTILLER} <= whole._modules.keys():
            return call(self, model)
        if isinstance(getattr(self, 'constructors', None), dict):
            return _one_optimizer(call(self, model), self, whole)
        options = getattr(self, 'paramwise_cfg', None) or {}
        if not options and call.__module__.startswith('mmengine.'):
            return call(self, model)
        student = whole._modules[_STUDENT]
        keys = dict(options.get('custom_keys') or {})
        others = dict(options, custom_keys=_distillers_keys(keys, student))
        # Constructors leave out what is frozen, and no optimizer takes nothing.
        learns = any(p.requires_grad for p in student.parameters())
        self.paramwise_cfg = dict(options) if learns else others
        if keys and learns:
            self.paramwise_cfg['custom_keys'] = _students_keys(keys)
        try:
            wrapper = _one_optimizer(
                call(self, student if learns else model), self, whole
            )
        finally:
            self.paramwise_cfg = options
        if learns:
            _add_others(wrapper.optimizer, whole, others)
        return wrapper

    construct.adapts = True  # type: ignore[attr-defined]
    return construct


def _students_keys(keys: Mapping[str, dict]) -> dict[str, dict]:
    """Keys for the names that the student's parameters have alone."""
    plain: dict[str, dict] = {}
    prefixed: dict[str, dict] = {}
    for key, options in keys.items():
        first, _, rest = key.partition('.')
        (prefixed if first == _STUDENT else plain).update(
            {rest if first == _STUDENT else key: options}
        )
    return {**plain, **prefixed}


def _distillers_keys(keys: Mapping[str, dict], student: Any) -> dict[str, dict]:
    """Keys for the parameters beside the student's."""
    names = [name for name, _ in student.named_parameters()]
    found = {}
    for key, options in keys.items():
        first = key.partition('.')[0]
        if key.startswith(_DISTILLER) or not any(key in name for name in names):
            if first != _STUDENT:
                found[key] = options
        elif not any(first in name for name, _ in student.named_children()):
            decay = {k: v for k, v in options.items() if k == 'decay_mult'}
            if decay:
                found[key] = decay
    return found


def _add_others(optimizer: Any, whole: Any, options: dict[str, Any]) -> None:
    """Add the parameters beside the student's to an optimizer."""
    from mmengine.optim import DefaultOptimWrapperConstructor
    from torch import nn

    others = nn.Module()
    others._parameters = whole._parameters
    others._modules = {k: m for k, m in whole._modules.items() if k != _STUDENT}
    default = DefaultOptimWrapperConstructor(
        dict(optimizer=dict(optimizer.defaults)), options
    )
    # What is there already is needed for `bypass_duplicate`.
    groups = [dict(params=group['params']) for group in optimizer.param_groups]
    there = len(groups)
    default.add_params(groups, others)
    names = {id(p): name for name, p in others.named_parameters()}
    # mmdet's groups have names, which then all must have.
    named = any('param_names' in group for group in optimizer.param_groups)
    for group in groups[there:]:
        if named:
            group['param_names'] = [names[id(p)] for p in group['params']]
        optimizer.add_param_group(group)


def _one_optimizer(wrapper: Any, constructor: Any, whole: Any) -> Any:
    """Refuse several optimizers where nothing steps them."""
    from mmengine.model import BaseModel
    from mmengine.optim import OptimWrapperDict

    if isinstance(wrapper, OptimWrapperDict) and (
        type(whole).train_step is BaseModel.train_step
    ):
        raise ValueError(
            f'{type(constructor).__name__} builds an optimizer for each of '
            f'{sorted(wrapper.keys())}, but {type(whole).__name__} makes its step with '
            'one. Give one optimizer, with other rates by name: `optim_wrapper=dict('
            'optimizer=dict(...), paramwise_cfg=dict(custom_keys=dict(distiller=dict('
            'lr_mult=10))))`.'
        )
    return wrapper
