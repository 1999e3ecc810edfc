# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checks that recorded layers exist before any hook is registered."""

from __future__ import annotations

from torch import nn

from mmfakd.messages import near_layers

# Recorders that are forward hooks of a module.
MODULE_RECORDERS = ('ModuleInputsRecorder', 'ModuleOutputsRecorder')


def check_layer_names(recorders: dict, model: nn.Module, role: str) -> None:
    """Check that every module a recorder names is part of the model.

    Args:
        recorders (dict): Name -> mmrazor recorder, the ``recorders`` of an mmrazor
            ``RecorderManager``. Recorders of functions, methods and parameters
            are left to mmrazor.
        model (nn.Module): The model whose layers are to be recorded.
        role (str): ``'student'`` or ``'teacher'``, for the message.

    Raises:
        ValueError: If a module is not in ``model.named_modules()``. The message
            lists the nearest names.
    """
    names = dict(model.named_modules())
    for recorder_name, recorder in recorders.items():
        if type(recorder).__name__ not in MODULE_RECORDERS:
            continue
        if recorder.source in names:
            continue
        part = recorder.source.partition('.')[0]
        without = ' It has no neck: record layers of its backbone.' * (
            part == 'neck' and part not in names
        )
        raise ValueError(
            f'{role} recorder {recorder_name!r}: the {role} '
            f'({type(model).__name__}) has no layer {recorder.source!r}.{without} '
            f'Nearest names: {near_layers(recorder.source, list(names))}. '
            'Choose one of `model.named_modules()`.'
        )
