# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How deep a model runs, so that its layers are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

from mmengine.model import BaseModel
from mmrazor.models.task_modules.recorder import RecorderManager
from torch import Tensor, nn

from .why_no_softmax import is_reid

# From shallow to deep.
MODES = ('backbone', 'neck', 'tensor', 'loss')


def run_model(
    model: BaseModel, mode: str, inputs: Tensor, data_samples: list | None
) -> Any:
    """Run a model on a batch.

    Args:
        model (BaseModel): The model.
        mode (str): One of ``MODES``; ``'neck'`` is ``extract_feat``.
        inputs (Tensor): The batch (N, C, H, W).
        data_samples (list, optional): Its N data samples.

    Returns:
        Any: What comes out.
    """
    if mode in ('backbone', 'neck') and inputs.dim() == 5 and is_reid(model):
        # Images (1, T, C, H, W), which the model unpacks itself as a whole.
        inputs = inputs.flatten(0, 1)
    if mode == 'backbone':
        return model.backbone(inputs)
    if mode == 'neck':
        return model.extract_feat(inputs)
    if mode == 'tensor' and not _heads_take_features(model):
        shape = tuple(inputs.shape[-2:])
        metas = dict(img_shape=shape, ori_shape=shape, pad_shape=shape)
        return model.encode_decode(inputs, [dict(metas) for _ in inputs])
    return model(inputs, data_samples, mode=mode)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back.

    Args:
        model (nn.Module): The model. Its ``train`` is not called, which in some models
            does more than that.

    Yields:
        None: Neither running statistics nor dropout are at work within.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _heads_take_features(model: BaseModel) -> bool:
    """Whether mode 'tensor' serves: mmseg's hands features alone to decode heads.

    That of a Mask2Former wants samples, too, that of a PointRend points.
    """
    head: Any = getattr(model, 'decode_head', None)
    if head is None or not hasattr(model, 'encode_decode'):
        return True
    last = head[-1] if isinstance(head, nn.ModuleList) else head
    arguments = signature(last.forward).parameters.values()
    needed = [
        p.name for p in arguments if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    # The later heads of a cascade also get what the one before has made.
    return len(needed) == 1 or needed[1:] == ['prev_output']


def shallowest_mode(model: BaseModel, manager: RecorderManager) -> str:
    """Tell the least mode that may do.

    Args:
        model (BaseModel): The model.
        manager (RecorderManager): Its recorders.

    Returns:
        str: ``'backbone'``, ``'neck'`` or ``'tensor'``.
    """
    mode = recorded_part(model, manager)
    return 'neck' if mode == 'backbone' and _masks(model) else mode


def recorded_part(model: BaseModel, manager: RecorderManager) -> str:
    """Tell how deep a model is recorded, by the names of the layers.

    Args:
        model (BaseModel): The model.
        manager (RecorderManager): Its recorders.

    Returns:
        str: ``'backbone'``, ``'neck'`` or ``'tensor'`` for what lies behind both.
    """
    parts = {r.source.partition('.')[0] for r in manager.recorders.values()}
    behind = parts.intersection(dict(model.named_children())) - {'backbone'}
    if behind - {'neck'}:
        return 'tensor'
    return 'neck' if behind else 'backbone'


def unnamed_recorders(model: BaseModel, manager: RecorderManager) -> set[str]:
    """Find the recorders whose source does not say where in a model it is.

    Args:
        model (BaseModel): The model.
        manager (RecorderManager): Its recorders.

    Returns:
        set[str]: Names of those of functions, of methods and of the whole model.
    """
    parts = dict(model.named_children())
    return {
        name
        for name, recorder in manager.recorders.items()
        if recorder.source.partition('.')[0] not in parts
    }


def _masks(model: BaseModel) -> bool:
    """Whether its backbone masks images unless it is told not to, as MAE's does.

    Its ``extract_feat`` tells it so.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        return False
    mask = signature(backbone.forward).parameters.get('mask')
    if mask is None or mask.default is mask.empty:
        return False
    return not (mask.default is None or mask.default is False)
