# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of other libraries that mmrazor and mmpretrain need late or never."""

from __future__ import annotations

import builtins
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from .import_hook import Execute, around_import, when_imported

# Modules of mmrazor 1.0 that import some name of another library: for a type check, an
# annotation, or an object that is made later.
_IMPORTERS = (
    'mmrazor.engine.runner.utils.check',
    'mmrazor.models.distillers.ofd_distiller',
    'mmrazor.models.task_modules.demo_inputs.default_demo_inputs',
    'mmrazor.models.task_modules.predictor.handler.carts_handler',
    'mmrazor.models.task_modules.predictor.handler.mlp_handler',
    'mmrazor.models.task_modules.predictor.metric_predictor',
    'mmrazor.models.task_modules.tracer.loss_calculator.'
    'cascade_encoder_decoder_loss_calculator',
    'mmrazor.models.task_modules.tracer.loss_calculator.'
    'single_stage_detector_loss_calculator',
    'mmrazor.models.task_modules.tracer.loss_calculator.'
    'two_stage_detector_loss_calculator',
)
_IMPORTED = (
    'mmdet.models',
    'mmdet.models.detectors',
    'mmdet.models.losses',
    'mmseg.models',
    'scipy.stats',
    'sklearn.tree',
)
# A module of mmpretrain 1.2 that registers a layer of mmdet's.
_EXTENSION = 'mmpretrain.models.utils.res_layer_extra_norm'


class _Late(type):
    """Metaclass of a name whose real definition is looked up when it is used."""

    def __instancecheck__(cls, instance: Any) -> bool:
        # There is no object of a class whose module nobody has imported.
        real = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
        return real is not None and isinstance(instance, real)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real()(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(cls._real(), name)

    def _real(cls) -> Any:
        return getattr(import_module(cls.__module__), cls.__name__)


def _late(module: str, name: str) -> Any:
    return _Late(name, (), {'__module__': module})


def _stand_in(module: str) -> ModuleType:
    """Make a module that has every name, as a late one."""

    def late(name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return _late(module, name)

    stand_in = ModuleType(module)
    vars(stand_in)['__getattr__'] = late
    return stand_in


def _import_late(execute: Execute, module: ModuleType) -> None:
    """Run a module whose own import statements find stand-ins."""
    running = True

    def import_(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level=0
    ) -> Any:
        # Functions of the module import as usual, later.
        if not running or level or name not in _IMPORTED or name in sys.modules:
            return builtins.__import__(name, globals, locals, fromlist, level)
        stand_in = _stand_in(name)
        if fromlist:
            return stand_in
        # `import package.module as other` takes the module from the package.
        package, _, attribute = name.rpartition('.')
        parent = ModuleType(package)
        setattr(parent, attribute, stand_in)
        return parent

    # Where an import statement looks for what it calls.
    vars(module)['__builtins__'] = dict(vars(builtins), __import__=import_)
    try:
        execute(module)
    finally:
        running = False
        vars(module)['__builtins__'] = builtins


def _extend_late(execute: Execute, module: ModuleType) -> None:
    """Run mmpretrain's extension of mmdet once there is an mmdet to extend."""
    if 'mmdet.models' in sys.modules:
        execute(module)
        return
    name = 'ResLayerExtraNorm'
    setattr(module, name, _late(module.__name__, name))

    def extend() -> None:
        execute(module)
        package = module.__name__.rpartition('.')[0]
        setattr(sys.modules[package], name, getattr(module, name))

    when_imported('mmdet.models', extend)


def import_libraries_late() -> None:
    """Let a classifier be trained without importing the models of detectors.

    mmrazor 1.0.0 and mmpretrain 1.2.0 import all models of mmdet and mmsegmentation,
    where these are installed, for the sake of a few names. That is a third of the time
    that a command takes to start, and what is wrong with one library stops the training
    with another. With this shim such a name stands for the real one: ``isinstance`` is
    as before, and what uses it imports the library.
    """
    for name in _IMPORTERS:
        around_import(name, _import_late)
    around_import(_EXTENSION, _extend_late)
