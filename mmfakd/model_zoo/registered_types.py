# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a `type` of a stranger's config may call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmengine.registry
from mmengine.registry import Registry, registry
from mmengine.utils import misc
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from mmfakd.compat.named_types import (
    holds,
    is_openmmlab,
    is_pipeline,
    parts_of_mmpretrain,
)

from .one_at_a_time import ONE_AT_A_TIME
from .plain_files import plain_files_only

# Of root registries; those have a child in every library. They run files.
_NEVER = ('INFERENCERS', 'RUNNERS')
# What a model is made of.
_MODELS = ('MODELS', 'TASK_UTILS', 'WEIGHT_INITIALIZERS', 'TRANSFORMS')
# They need not be registered.
_KINDS = (nn.Module, Optimizer)


@contextmanager
def registered_types_only(models_only: bool = False) -> Iterator[None]:
    """Let registries call nothing but what is meant to be built by a config.

    MMEngine's registries take a name that they do not know for that of anything that
    can be imported, and import and call it: inferencers, which run files, loggers,
    which empty them, or a module that lies in the working directory. They also import
    the registry of what they take for a library, such as 'models' in
    'mmdet.models.Net'. Within this context they take what is registered somewhere,
    modules, optimizers, transforms and data sets alone, and import OpenMMLab's
    libraries; so does mmrazor, whose recorders import what they record of. What is
    built reads plain files alone, see
    :func:`~mmfakd.model_zoo.plain_files.plain_files_only`.

    Args:
        models_only (bool): Whether only what models are made of is built. Defaults to
            False, for anything of a training.

    Yields:
        None: Within the context it is so, in all threads. Other threads wait to enter.
    """
    names = _MODELS if models_only else _all_roots()
    kinds = _KINDS if models_only else (*_KINDS, Dataset)
    with ONE_AT_A_TIME, plain_files_only():
        original, importing = registry.get_object_from_string, registry.import_module

        def named(name: str) -> Any:
            # Without dots it is a module; to look for one imports what is before it.
            found = original(name) if '.' in name and _may_import(name) else None
            of_kind = isinstance(found, type) and issubclass(found, kinds)
            if of_kind or is_pipeline(found):
                return found
            roots = [getattr(mmengine.registry, root) for root in names]
            roots += parts_of_mmpretrain()
            return found if any(holds(root, found) for root in roots) else None

        def import_module(name: str) -> Any:
            if not _may_import(name):
                raise ImportError(f'{name} is none of the OpenMMLab libraries')
            return importing(name)

        registry.get_object_from_string, registry.import_module = named, import_module
        # By which `import_modules_from_strings` imports.
        misc.import_module = import_module
        try:
            yield
        finally:
            registry.get_object_from_string = original
            registry.import_module = misc.import_module = importing


def _may_import(name: str) -> bool:
    """Whether a name begins with a library, or with what is imported already."""
    return is_openmmlab(name) or name.partition('.')[0] in sys.modules


def _all_roots() -> list[str]:
    known = vars(mmengine.registry).items()
    return [k for k, v in known if isinstance(v, Registry) and k not in _NEVER]
