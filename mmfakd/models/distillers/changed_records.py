# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Records that a network changes in place after they were taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mmfakd.ops.compiling import compiled_parts

from .attach_recorders import attach_recorders, find_layer
from .check_layer_names import MODULE_RECORDERS


@contextmanager
def tell_changed_records(
    recorders: Mapping[str, BaseRecorder], model: nn.Module, role: str
) -> Iterator[None]:
    """Warn of records that are something else by the end of a forward pass.

    In-place activations are switched off, but a network may say ``out += identity``:
    the record of what stood before it is the sum, then. Compiled parts are not
    watched.

    Args:
        recorders (Mapping[str, BaseRecorder]): Name -> mmrazor recorder, prepared.
        model (nn.Module): The model whose layers are recorded.
        role (str): ``'student'`` or ``'teacher'``, for the message.

    Yields:
        None: Nothing; the model runs within the context.
    """
    # Hooks would cut these into more graphs, for good.
    compiled = compiled_parts(model)
    attach_recorders(recorders, model, role)
    taken: list[tuple[str, Tensor, int, Tensor | None]] = []
    handles = []
    for recorder in recorders.values():
        layer = None
        if type(recorder).__name__ in MODULE_RECORDERS:
            layer = find_layer(model, recorder.source)
        if layer is not None and layer not in compiled:
            # Behind the recorder's own hook, whose record is the last one.
            handles.append(layer.register_forward_hook(_noting(recorder, taken)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    changed = dict.fromkeys(record[0] for record in taken if _is_changed(*record[1:]))
    for name in changed:
        print_log(
            f'{role} recorder {name!r}: the {role} changes this record in place after '
            'it was taken, as `out += identity` does, so that what is distilled is the '
            'result of that, and not what the name says. Record the layer around it, '
            'or what goes into the layer behind it: dict(recorder=dict('
            "type='mmrazor.ModuleInputs', source=...), data_idx=0).",
            logger='current',
            level=logging.WARNING,
        )


def _is_changed(x: Tensor, version: int, before: Tensor | None) -> bool:
    if x._version == version:
        return False
    return before is None or not torch.equal(x.detach(), before)


def _noting(recorder: BaseRecorder, taken: list) -> Any:
    def note(*_: Any) -> None:
        if not recorder.recording:
            return
        for x in tree_flatten(recorder.data_buffer[-1])[0]:
            if isinstance(x, Tensor) and not torch.is_inference(x):
                # Views count what is done to the rest of their memory, too.
                before = x.detach().clone() if x._is_view() else None
                taken.append((recorder.source, x, x._version, before))

    return note
