# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What OFD compares: features before the activation that ends a level."""

from __future__ import annotations

from typing import Any

from .candidate import Candidate
from .code import Name
from .features import Feature
from .probe import Call, TensorInfo

_ACTIVATIONS = ('ReLU', 'ReLU6', 'LeakyReLU', 'PReLU')
# They change nothing, or nothing in evaluation.
_IDLE = ('Identity', 'Dropout', 'DropPath')


def before_activation(candidate: Candidate, feature: Feature) -> str | dict[str, Any]:
    """Name what a level is before the activation that it ends in.

    Args:
        candidate (Candidate): The model.
        feature (Feature): The level.

    Returns:
        str | dict: A level: what enters the activation, by a recorder ``act`` that
        the config has, or the level as it is where it ends in none.
    """
    last = _leaves(candidate, feature)[-1:]
    if not last or last[0].kind not in _ACTIVATIONS:
        return feature.level
    level: dict[str, Any] = dict(recorder=Name(f'dict(act, source={last[0].name!r})'))
    if last[0].index:
        level['record_idx'] = last[0].index
    return dict(level, data_idx=0)


def find_margin(candidate: Candidate, feature: Feature) -> str | None:
    """Find the batch norm that tells where a level's negative values lie.

    Args:
        candidate (Candidate): The teacher.
        feature (Feature): A level of it.

    Returns:
        str | None: The last batch norm before the activation that ends the level, or
        the one that ends it; None where it ends in neither.
    """
    leaves = _leaves(candidate, feature)
    if leaves and leaves[-1].kind in _ACTIVATIONS:
        leaves.pop()
    if not leaves or 'BatchNorm' not in leaves[-1].kind:
        return None
    shape = getattr(leaves[-1].output, 'shape', ())
    return leaves[-1].name if shape[1:2] == (feature.channels,) else None


def _leaves(candidate: Candidate, feature: Feature) -> list[Call]:
    """The calls of layers without parts within a level, but for idle ones."""
    name, order = feature.call.name, feature.call.order
    return [
        call
        for call in candidate.probe.calls
        if call.is_leaf
        and call.order <= order
        and (name in call.path or call.name == name)
        and call.kind not in _IDLE
        and isinstance(call.output, TensorInfo)
    ]
