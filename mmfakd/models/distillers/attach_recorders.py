# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Recorders that stay with the layers they name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import nn

from mmfakd.ops.compiling import is_compiling

from .any_distiller import compared_levels, missing_records
from .check_layer_names import MODULE_RECORDERS, check_layer_names


def attach_recorders(
    recorders: Mapping[str, BaseRecorder], model: nn.Module, role: str
) -> None:
    """Move recorders to the layers that have taken the place of those they were on.

    A recorder is a forward hook of a module, and what replaces the module has none:
    conversion to synchronised norms and back, fusion of convolutions and norms, LoRA
    and mutators all do that, and the recorder would record nothing, or a part. Where
    nothing was replaced this costs some microseconds.

    Args:
        recorders (Mapping[str, BaseRecorder]): Name -> mmrazor recorder, prepared.
        model (nn.Module): The model whose layers are recorded.
        role (str): ``'student'`` or ``'teacher'``, for messages.

    Raises:
        ValueError: If a recorded layer is gone; the nearest names are listed.
    """
    # A compiled step is not to be cut into more graphs.
    if is_compiling():
        return
    for name, recorder in recorders.items():
        kind = type(recorder).__name__
        if kind == 'ParameterRecorder':
            _attach_weight(recorder, model)
        if kind not in MODULE_RECORDERS:
            continue
        layer = find_layer(model, recorder.source)
        if layer is None:
            check_layer_names({name: recorder}, model, role)
            continue
        if _hooks(layer, recorder):
            continue
        for module in model.modules():
            for key in _hooks(module, recorder):
                del module._forward_hooks[key]
        layer.register_forward_hook(recorder.forward_hook)  # type: ignore[attr-defined]
        print_log(
            f'{role} recorder {name!r}: the layer {recorder.source!r} has been '
            f'replaced since the model was built; the {type(layer).__name__} that '
            'stands there now is recorded.',
            logger='current',
            level=logging.WARNING,
        )


def refuse_missing_records(distiller: ConfigurableDistiller) -> None:
    """Say which recorder of a loss recorded too little, if one did.

    Args:
        distiller (ConfigurableDistiller): The distiller, after both models ran.

    Raises:
        RuntimeError: If one did. It names layer, number of calls and likely causes.
    """
    levels = [level for some in compared_levels(distiller).values() for level in some]
    for role in ('student', 'teacher'):
        recorders = getattr(distiller, f'{role}_recorders').recorders
        is_student = role == 'student'
        used = {level.recorder for level in levels if level.from_student == is_student}
        for name in missing_records(distiller, from_student=is_student):
            if name not in used:
                continue
            source = getattr(recorders[name], 'source', name)
            calls = len(recorders[name].data_buffer)
            raise RuntimeError(
                f'{role} recorder {name!r}: the layer {source!r} was called {calls} '
                f'time(s) in the forward pass of the {role}, fewer than its level '
                'needs (`record_idx` + 1). Either this pass does not come through it '
                '(another branch, a head that predicts only, layers dropped at random, '
                'a deploy mode), or the layer is not called as a module (its `forward` '
                'or its weights are used directly, or TorchScript runs it). Record the '
                'layer around it, or lower `record_idx`.'
            )


def find_layer(model: nn.Module, source: str) -> nn.Module | None:
    """Find the module of a name, without what torch.compile puts around it.

    Args:
        model (nn.Module): The model.
        source (str): The name, ``''`` for the model itself.

    Returns:
        nn.Module | None: The module, if there is one.
    """
    layer: Any = model
    for part in source.split('.') if source else ():
        layer = getattr(layer, part, None)
        if not isinstance(layer, nn.Module):
            return None
        layer = getattr(layer, '_orig_mod', layer)
    return layer


def _hooks(module: nn.Module, recorder: BaseRecorder) -> Iterable[int]:
    """Keys of the hooks of a module that are a recorder's."""
    hooks = module._forward_hooks.items()
    return [k for k, hook in hooks if getattr(hook, '__self__', None) is recorder]


def _attach_weight(recorder: BaseRecorder, model: nn.Module) -> None:
    owner, _, name = recorder.source.rpartition('.')
    layer = find_layer(model, owner)
    weight = getattr(layer, name, None)
    if isinstance(weight, nn.Parameter) and [id(weight)] != list(
        map(id, recorder.data_buffer)
    ):
        recorder.data_buffer[:] = [weight]
