# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights of a deeper network, into which a shallower one fits wholly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

_LISTS = (nn.Sequential, nn.ModuleList)


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


def is_of_backbone(part: str) -> bool:
    """Whether a part of a model lies within its backbone, or is it.

    Args:
        part (str): Its name.

    Returns:
        bool: Whether it does.
    """
    return 'backbone' in part.split('.')


def _first_absent(key: str, modules: Mapping[str, nn.Module]) -> tuple[str, str]:
    """The innermost module of the model on the way to a key, and the next name."""
    parts = key.split('.')
    for end in range(len(parts) - 1, 0, -1):
        owner = '.'.join(parts[:end])
        if owner in modules:
            return owner, parts[end]
    return '', parts[0]
