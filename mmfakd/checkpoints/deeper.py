# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights of a deeper network, into which a shallower one fits wholly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

_LISTS = (nn.Sequential, nn.ModuleList)

# Lists whose parts run one after the other, by the names that torchvision and
# OpenMMLab give them. Others, such as an HRNet's branches, may run side by side.
# XCiT's are `xca_layers` and `ca_layers`; HRNet's `fuse_layers` are none.
_IN_TURN = re.compile(
    '(layer|block|stage|feature)s?_?[0-9]*|x?ca_layers|encoder|network|backbone'
)

# Backbones that build nothing behind the last of their `out_indices`. All others of
# OpenMMLab have all of their depth, whatever they yield.
_BUILT_AS_YIELDED = ('mmdet.models.backbones.efficientnet.EfficientNet',)


def deeper_parts(model: nn.Module, ignored: Iterable[str]) -> dict[str, str]:
    """Find blocks and stages of a checkpoint that go on where those of a model end.

    Loose tensors and parts that the model has not at all, such as an auxiliary head,
    are none.

    Args:
        model (nn.Module): The model.
        ignored (Iterable[str]): Keys of the checkpoint that it has no place for.

    Returns:
        dict[str, str]: ``'backbone.layer1.2'`` -> ``'backbone.layer1.1'``, the last
        that the model has there.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, str] = {}
    for key in ignored:
        owner, child = _first_absent(key, modules)
        own = [int(name) for name in modules[owner]._modules if name.isdecimal()]
        if isinstance(modules[owner], _LISTS) and own and child.isdecimal():
            before = f'{owner}.' if owner else ''
            found[f'{before}{child}'] = f'{before}{max(own)}'
    return found


def cuts_backbone(model: nn.Module, part: str, whole: bool) -> bool:
    """Whether a backbone yields something else without a part of a checkpoint.

    Args:
        model (nn.Module): The model.
        part (str): A part that it lacks, of :func:`deeper_parts`.
        whole (bool): Whether all of the model is used. If not, what a backbone left
            out as it does not yield it, such as mmdet's EfficientNet, is not missed.

    Returns:
        bool: Whether that is certain.
    """
    owner = part.rpartition('.')[0]
    named = [name for name in owner.split('.') if not name.isdecimal()]
    if 'backbone' not in named or not _IN_TURN.fullmatch(named[-1]):
        return False
    return whole or not _is_built_as_yielded(model, owner)


def _is_built_as_yielded(model: nn.Module, owner: str) -> bool:
    """Whether a list is of a backbone that builds no more than it yields."""
    backbone = model.get_submodule(owner.rpartition('.')[0])
    kinds = (f'{kind.__module__}.{kind.__name__}' for kind in type(backbone).__mro__)
    return any(kind in _BUILT_AS_YIELDED for kind in kinds)


def _first_absent(key: str, modules: Mapping[str, nn.Module]) -> tuple[str, str]:
    """The innermost module of the model on the way to a key, and the next name."""
    parts = key.split('.')
    for end in range(len(parts) - 1, 0, -1):
        owner = '.'.join(parts[:end])
        if owner in modules:
            return owner, parts[end]
    return '', parts[0]
