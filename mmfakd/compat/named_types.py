# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a `type` of a stranger's config stands for: the object, not its name alone."""

from __future__ import annotations

import os.path as osp
import re
import sys
from importlib.util import find_spec
from typing import Any

# What registries look for in models, transforms, hooks and loaders, as they do for
# `type`.
TYPE_KEYS = (
    *('type', 'conv_type', 'act_cfg_list', 'norm_layer', 'padding_mode'),
    *('resize_type', 'constructor', 'ema_type', 'auto_wrap_policy', 'param_init_fn'),
    'collate_fn',
)
_OPENMMLAB = (
    'mm(engine|cv|pretrain|cls|det|det3d|seg|razor|fakd|pose|action|ocr|rotate|yolo'
    '|selfsup|agic|edit|track|deploy)'
)
# What a `type` may name by its dots: registered names with a scope, classes and
# collate functions of the OpenMMLab libraries but those that run files, modules and
# optimizers of torch, and what tells FSDP which modules to wrap. A demo of mmpretrain
# reads the command line when it is imported. Names that are no Python are registered.
_CLASS = r'[a-z]?[A-Z]\w*(?<!Inferencer)(?<!Logger)(?<!Runner)'
_TYPE = re.compile(
    rf'{_OPENMMLAB}\.(?!apis\.)(?!(\w+\.)*(__\w+|gradio_demo)\.)'
    rf'(\w+\.)*({_CLASS}|\w*collate\w*)'
    r'|mmrazor\.(registry\.)*sub_model|mmpretrain\.(torchvision/\w+|DALL-E)'
    r'|torch\.(nn|ao\.nn|optim)\.(\w+\.)*[A-Z]\w*'
    r'|torch\.distributed\.fsdp\.wrap\.[a-z]+(_[a-z]+)*_policy'
)
# Registries of what models, pipelines and visualizers are made of.
_PARTS = (
    *('MODELS', 'MODEL_WRAPPERS', 'WEIGHT_INITIALIZERS', 'TASK_UTILS', 'TRANSFORMS'),
    *('FUNCTIONS', 'VISUALIZERS', 'VISBACKENDS'),
)
_PARTS_OF_MMPRETRAIN = ('BATCH_AUGMENTS', 'TOKENIZER')


def is_openmmlab(module: str) -> bool:
    """Tell whether a module is one of the OpenMMLab libraries, or a part of one.

    Args:
        module (str): Its name.

    Returns:
        bool: Whether it is, by its name.
    """
    return re.fullmatch(_OPENMMLAB, module.partition('.')[0]) is not None


def is_module(name: str) -> bool:
    """Tell whether Python finds a module of a name; nothing is imported.

    Args:
        name (str): A name without dots.

    Returns:
        bool: Whether it does.
    """
    # Also what no `import` could spell, such as `a-b`: MMEngine imports by name.
    try:
        return bool(name) and find_spec(name) is not None
    except ValueError:
        # Such as `__main__`.
        return True


def find_risk_of_type(kind: str) -> str | None:
    """Tell why a registry of MMEngine should not look for a name, and call it.

    The OpenMMLab library that a name with dots begins with is imported, and so is the
    module in it.

    Args:
        kind (str): What a config has as `type`.

    Returns:
        str | None: The reason, as the end of a sentence; None if there is none.
    """
    if '.' not in kind:
        named = is_module(kind) and not is_openmmlab(kind)
        return 'is the name of a module, which would be imported' if named else None
    if not _TYPE.fullmatch(kind):
        return 'is none of the OpenMMLab libraries or torch.nn'
    if foreign := _foreign_part(kind):
        return f'imports {foreign!r}, which is no part of it'
    # It is not found where a library is missing, or where it is a registered name.
    # Then it is no class of another library either, as nothing can be built from it.
    found = _find(kind)
    own = kind if found is None else _own_name(found)
    if found is not None and not _is_meant(found, own):
        what = 'class or registered function of the OpenMMLab libraries or torch.nn'
        return f'is {own}, no {what}'
    return 'reads files' if own.startswith('mmengine.fileio.') else None


def is_dataset(kind: str) -> bool:
    """Tell whether a name with dots is that of a data set, or of a wrapper of some.

    Args:
        kind (str): A `type` in which :func:`find_risk_of_type` finds none.

    Returns:
        bool: Whether it is. Names that cannot be imported are none.
    """
    from mmengine.registry import DATASETS
    from torch.utils.data import Dataset

    # Transforms are imported from the same packages, `mmdet.datasets.PackDetInputs`.
    found = _find(kind) if '.' in kind else None
    return _is_subclass(found, Dataset) or holds(DATASETS, found)


def is_model_part(kind: str) -> bool:
    """Tell whether models, pipelines and visualizers are made of what a name is of.

    Metrics, hooks and loops are not: they remove folders, and write files, where they
    are built or end.

    Args:
        kind (str): A `type` in which :func:`find_risk_of_type` finds none.

    Returns:
        bool: Whether they are. So is what cannot be imported, as it cannot be built,
        and a name without dots, which is sought in the registry that is meant.
    """
    from mmengine import registry
    from torch.nn import Module

    found = _find(kind) if '.' in kind else None
    if found is None or kind.startswith('torch.') or _is_subclass(found, Module):
        return True
    roots = [getattr(registry, name) for name in _PARTS] + parts_of_mmpretrain()
    return any(holds(root, found) for root in roots) or is_pipeline(found)


def parts_of_mmpretrain() -> list[Any]:
    """List the registries of mmpretrain's models that are below none of MMEngine's.

    Returns:
        list[Registry]: They; none where mmpretrain is not imported.
    """
    own = sys.modules.get('mmpretrain.registry')
    return [getattr(own, name) for name in _PARTS_OF_MMPRETRAIN if own is not None]


def is_pipeline(found: Any) -> bool:
    """Tell whether it is a transform, or what puts some together.

    Args:
        found (object): What a name stands for; not all transforms are registered.

    Returns:
        bool: Whether it is.
    """
    from mmcv.transforms import BaseTransform
    from mmengine.dataset import Compose

    return _is_subclass(found, (BaseTransform, Compose))


def _is_subclass(found: Any, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(found, type) and issubclass(found, kinds)


def holds(registry: Any, found: Any) -> bool:
    """Tell whether a registry, or one of a library below it, has an object.

    Args:
        registry (Registry): The registry.
        found (object): The object, by its identity.

    Returns:
        bool: Whether it does.
    """
    own = any(value is found for value in registry._module_dict.values())
    return own or any(holds(child, found) for child in registry._children.values())


def _find(kind: str) -> Any:
    """What Python finds by a name with dots; None if it finds nothing.

    MMEngine's registries first look for what is registered as the rest of the name.
    That is left to them, as it is meant to be built.
    """
    from mmengine.utils import get_object_from_string

    try:
        return get_object_from_string(kind)
    except Exception:
        # A library refuses to be imported, as its versions do not fit, with an error
        # of any kind. Nothing can be built from it then.
        return None


def _own_name(found: Any) -> str:
    """Where an object is defined; modules import each other's, and Python's own."""
    name = getattr(found, '__qualname__', type(found).__name__)
    return f'{getattr(found, "__module__", None)}.{name}'


def _is_meant(found: Any, own: str) -> bool:
    """Whether it is a class, a function for loaders or FSDP, or a registered one."""
    from mmengine.registry import MODELS

    if not _TYPE.fullmatch(own):
        return False
    meant = isinstance(found, type) or re.search(r'collate\w*$|_policy$', own)
    return bool(meant) or holds(MODELS, found)


def _foreign_part(kind: str) -> str:
    """The part of a name with dots that MMEngine takes for a library of its own.

    A registry looks 'mmdet.models.Net' up in that of mmdet, which imports
    'models.registry' then, whatever package 'models' is.
    """
    library, *parts = kind.split('.')
    if len(parts) < 2 or not is_openmmlab(library) or not is_module(parts[0]):
        return ''
    spec = find_spec(library)
    for folder in (spec and spec.submodule_search_locations) or ():
        if any(osp.exists(osp.join(folder, parts[0] + end)) for end in ('', '.py')):
            return ''
    return parts[0]
