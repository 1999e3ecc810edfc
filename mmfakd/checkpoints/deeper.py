# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights of a deeper network, into which a shallower one fits wholly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

_LISTS = (nn.Sequential, nn.ModuleList)

# Lists whose parts run one after the other, by the names that torchvision and
# OpenMMLab give them. Others, such as an HRNet's branches, may run side by side.
_IN_TURN = re.compile('(layer|block|stage|feature)s?_?[0-9]*|encoder|network|backbone')

# Those from which a backbone yields what `out_indices` counts.
_YIELDED = ('layers', 'blocks', 'stages')


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
        whole (bool): Whether all of the model is used. If not, parts behind the last
            that the backbone yields are not missed: some, such as mmdet's
            EfficientNet, do not build them.

    Returns:
        bool: Whether that is certain.
    """
    owner, _, child = part.rpartition('.')
    named = [name for name in owner.split('.') if not name.isdecimal()]
    if 'backbone' not in named or not _IN_TURN.fullmatch(named[-1]):
        return False
    return whole or int(child) <= _last_yielded(model, owner, int(child))


def _last_yielded(model: nn.Module, owner: str, otherwise: int) -> int:
    """The last entry of a list that a backbone yields, where that is known."""
    path, _, name = owner.rpartition('.')
    if name not in _YIELDED or path.rpartition('.')[2] != 'backbone':
        return otherwise
    indices = getattr(model.get_submodule(path), 'out_indices', None)
    if not isinstance(indices, (list, tuple)) or not indices:
        return otherwise
    known = all(isinstance(i, int) and i >= 0 for i in indices)
    return max(indices) if known else otherwise


def _first_absent(key: str, modules: Mapping[str, nn.Module]) -> tuple[str, str]:
    """The innermost module of the model on the way to a key, and the next name."""
    parts = key.split('.')
    for end in range(len(parts) - 1, 0, -1):
        owner = '.'.join(parts[:end])
        if owner in modules:
            return owner, parts[end]
    return '', parts[0]
