# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The model inside of wrappers, and its layers by name."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from mmfakd.messages import near_layers

# What wrappers put into the names of layers.
_WRAPPED = ('module', '_orig_mod')


def unwrap(model: nn.Module, role: str) -> nn.Module:
    """Take a model out of what compiles or distributes it.

    Args:
        model (nn.Module): A model, or ``DistributedDataParallel`` or what
            ``torch.compile`` made of one, or both.
        role (str): ``'student'`` or ``'teacher'``, for messages.

    Returns:
        nn.Module: The model itself.

    Raises:
        TypeError: For what is no module, or in which no hooks run.
    """
    while True:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f'{role}: got a {type(model).__name__}; expected a torch.nn.Module.'
            )
        if isinstance(model, DataParallel):
            raise TypeError(in_data_parallel(role))
        if isinstance(model, torch.jit.ScriptModule):
            raise TypeError(
                f'The {role} is a TorchScript module, whose layers cannot be recorded. '
                'Give the model that it was made of.'
            )
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif '_orig_mod' in model._modules:
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def in_data_parallel(role: str) -> str:
    """Say why no model is recorded that ``DataParallel`` runs, and what to do.

    Args:
        role (str): ``'student'`` or ``'teacher'``.

    Returns:
        str: The message.
    """
    return (
        f'The {role} is a DataParallel, whose copies of the model record side by side. '
        'Take the model inside (`.module`) and train on several GPUs with '
        'DistributedDataParallel.'
    )


def layer_name(model: nn.Module, layer: str | nn.Module, role: str) -> str:
    """Find a layer of a model, whatever wrappers were around when it got its name.

    Args:
        model (nn.Module): The unwrapped model.
        layer (str | nn.Module): Its name, or the layer itself.
        role (str): ``'student'`` or ``'teacher'``, for messages.

    Returns:
        str: Its name in ``model.named_modules()``.

    Raises:
        ValueError: If there is no such layer; near names are listed.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    owner = f'the {role} ({type(model).__name__})'
    if isinstance(layer, nn.Module):
        found = [name for name, module in modules.items() if module is layer]
        if found:
            return found[0]
        raise ValueError(
            f'{role}_layers: a given {type(layer).__name__} is no layer of {owner}.'
        )
    if layer in modules:
        return layer
    known = {_bare(name): name for name in modules}
    if _bare(layer) in known:
        return known[_bare(layer)]
    raise ValueError(
        f'{role}_layers: {owner} has no layer {layer!r}. Nearest names: '
        f'{near_layers(layer, list(modules))}. Choose of `{role}.named_modules()`.'
    )


def _bare(name: str) -> str:
    return '.'.join(part for part in name.split('.') if part not in _WRAPPED)
