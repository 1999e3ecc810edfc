# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The models of a distillation: built, and made ready for recorders and weights."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.model_zoo.student_of import student_of
from mmfakd.model_zoo.type_names import type_name

from .loaded_weights import note_loaded, watch_loading


def build_model(
    model: dict | BaseModel, role: str, data_preprocessor: dict | None = None
) -> tuple[BaseModel, str | None]:
    """Build a model whose features can be recorded.

    A teacher that is a distillation is its student.

    Args:
        model (dict | BaseModel): A config, ``dict(cfg_path=...)`` or a built model.
        role (str): The argument's name, for the message.
        data_preprocessor (dict, optional): The one at the top level of its config.

    Returns:
        tuple[BaseModel, str | None]: The model, no activation in place, and the
        address of its weights if its config asks for them.

    Raises:
        TypeError: If it is neither a config nor a ``BaseModel``.
        ValueError: If the config has neither a type nor a ``cfg_path``, or both, or a
            teacher that is a distillation has arguments that this does not take.
    """
    weights = None
    if isinstance(model, dict):
        if not model.keys() & {'type', 'cfg_path'}:
            has = f'a config with only {sorted(model)}' if model else 'an empty config'
            raise ValueError(
                f'{role}: got {has}; expected dict(type=...) or '
                "dict(cfg_path='package::folder/config.py')."
            )
        cfg, weights = resolve_model_cfg(model, data_preprocessor)
        # As `architecture` it stays what it is: two distillations of one student.
        if role == 'teacher':
            cfg = student_of(cfg)
        with watch_loading() as loaded:
            model = ROOT_MODELS.build(cfg)
        if isinstance(model, nn.Module):
            note_loaded(loaded, model)
    if not isinstance(model, BaseModel):
        hint = f' Write dict(cfg_path={model!r}).' if isinstance(model, str) else ''
        raise TypeError(
            f'{role}: got {type(model).__name__}; expected a model config, '
            "dict(cfg_path='package::folder/config.py') or an mmengine BaseModel."
            f'{hint}'
        )
    disable_inplace(model)
    return norms_for_cpu(model), weights


def norms_for_cpu(model: BaseModel) -> BaseModel:
    """Make synchronised norms plain where several processes have no GPU.

    PyTorch synchronises them on GPUs alone. Names and numbers of weights stay.

    Args:
        model (BaseModel): The model, changed in place.

    Returns:
        BaseModel: The model.
    """
    # torch's and mmcv's, which its lite flavour has not.
    names = (type(module).__name__ for module in model.modules())
    synchronised = any(name.endswith('SyncBatchNorm') for name in names)
    if not synchronised or torch.cuda.is_available() or get_world_size() == 1:
        return model
    print_log(
        f'There is no GPU, so the synchronised norms of the {type(model).__name__} are '
        'plain ones: each process has the statistics of its own images.',
        logger='current',
        level=logging.WARNING,
    )
    return revert_sync_batchnorm(model)


def check_ckpt(ckpt: Any, name: str) -> None:
    """Check that a checkpoint is named where one is given.

    Args:
        ckpt (str, optional): What was given.
        name (str): The argument's name, for the message.

    Raises:
        ValueError: For an empty name, which would count as none.
    """
    if ckpt is not None and not str(ckpt).strip():
        raise ValueError(
            f'{name}={ckpt!r}; expected a path, a URL or a name of the model zoos, or '
            'None.'
        )


def disable_inplace(model: nn.Module) -> None:
    """Keep recorded features from being overwritten by the activation behind.

    Args:
        model (nn.Module): The model, changed in place.
    """
    for module in model.modules():
        if getattr(module, 'inplace', False) is True:
            module.inplace = False  # type: ignore[assignment]


def is_pretrained(module: nn.Module) -> bool:
    """Whether a module itself would load weights when it is initialised.

    Args:
        module (nn.Module): The module, its children aside.

    Returns:
        bool: True if its ``init_cfg`` names a checkpoint.
    """
    return any(map(_names_checkpoint, _init_cfgs(module)))


def pretrained_from(model: nn.Module) -> list[str]:
    """List the checkpoints that the initialisation of a model would load.

    Args:
        model (nn.Module): The model.

    Returns:
        list[str]: Name of a module, where it is not the model, and checkpoint.
    """
    return [
        f'{name}: {cfg["checkpoint"]}' if name else str(cfg['checkpoint'])
        for name, module in model.named_modules()
        for cfg in _init_cfgs(module)
        if _names_checkpoint(cfg)
    ]


def whole_from(model: nn.Module) -> str | None:
    """Name the checkpoint that a model as a whole is initialised from.

    Args:
        model (nn.Module): The model.

    Returns:
        str | None: That of its own ``init_cfg``, unless parts of it are meant.
    """
    named = (cfg for cfg in _init_cfgs(model) if _names_checkpoint(cfg))
    return next((cfg['checkpoint'] for cfg in named if not cfg.get('prefix')), None)


def drop_pretrained(model: nn.Module) -> None:
    """Let the initialisation of a model load no weights.

    Args:
        model (nn.Module): The model, changed in place.
    """
    for module in model.modules():
        if is_pretrained(module):
            kept = [cfg for cfg in _init_cfgs(module) if not _names_checkpoint(cfg)]
            module.init_cfg = kept or None  # type: ignore[assignment]
        # DetectoRS's backbones read an attribute.
        if isinstance(getattr(module, 'pretrained', None), str):
            module.pretrained = None  # type: ignore[assignment]


def _init_cfgs(module: nn.Module) -> list[Any]:
    cfgs: Any = getattr(module, 'init_cfg', None) or []
    return [cfgs] if isinstance(cfgs, dict) else cfgs


def _names_checkpoint(cfg: dict) -> bool:
    # mmdet's PVT configs give a checkpoint without a type.
    pretrained = cfg.get('type') is None or type_name(cfg).startswith('Pretrained')
    return 'checkpoint' in cfg and pretrained
