# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights that models load by themselves, in their constructor or when initialised."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

# Where a model keeps the names of what its constructor has loaded.
_NAMES = 'loaded_in_constructor'


@contextmanager
def watch_loading() -> Iterator[list[Tensor]]:
    """Note which tensors are filled from a state dict.

    Those of another shape, which loaders pass over, do not count. All loaders end in
    ``Module._load_from_state_dict``: torch's, MMEngine's, and those of timm,
    torchvision and Transformers.

    Yields:
        list[Tensor]: The parameters and buffers, growing.
    """
    base: Any = nn.Module
    original = base._load_from_state_dict
    loaded: list[Tensor] = []

    def load(self: nn.Module, state_dict: dict, prefix: str, *args: Any) -> None:
        original(self, state_dict, prefix, *args)
        for name, tensor in chain(self._parameters.items(), self._buffers.items()):
            given = state_dict.get(f'{prefix}{name}')
            if tensor is not None and _fits(given, tensor):
                loaded.append(tensor)

    base._load_from_state_dict = load
    try:
        yield loaded
    finally:
        base._load_from_state_dict = original


def names_of(tensors: Iterable[Tensor], model: nn.Module) -> list[str]:
    """Name tensors of a model.

    Args:
        tensors (Iterable[Tensor]): Parameters and buffers, of any model.
        model (nn.Module): The model.

    Returns:
        list[str]: Names of those that are its own.
    """
    identities = set(map(id, tensors))
    return [name for name, tensor in _tensors(model) if id(tensor) in identities]


def note_loaded(tensors: Iterable[Tensor], model: nn.Module) -> None:
    """Keep which tensors of a model were loaded when it was built.

    Args:
        tensors (Iterable[Tensor]): See :func:`watch_loading`.
        model (nn.Module): The model.
    """
    setattr(model, _NAMES, names_of(tensors, model))


def loaded_in_constructor(model: nn.Module) -> list[str]:
    """Name the tensors that a model had loaded when it was built.

    Args:
        model (nn.Module): The model.

    Returns:
        list[str]: Names of parameters and buffers.
    """
    return getattr(model, _NAMES, [])


@contextmanager
def keep_loaded(model: nn.Module) -> Iterator[None]:
    """Let the initialisation of a model leave alone what its constructor has loaded.

    MMEngine's goes down to every part with an ``init_weights``; those of timm and
    Transformers draw new weights then. What an ``init_cfg`` loads still goes over it.

    Args:
        model (nn.Module): The model.
    """
    names = set(loaded_in_constructor(model))
    kept = {n: t.detach().clone() for n, t in _tensors(model) if n in names}
    with watch_loading() as anew:
        yield
    renewed = set(names_of(anew, model))
    changed = []
    for name, tensor in _tensors(model):
        if name in kept and name not in renewed and not torch.equal(tensor, kept[name]):
            with torch.no_grad():
                tensor.copy_(kept[name])
            changed.append(name)
    if changed:
        print_log(
            f'{len(changed)} tensors of the {type(model).__name__}, such as '
            f'{changed[0]}, keep the weights that its constructor has loaded: its '
            'initialisation would have drawn new ones.',
            logger='current',
            level=logging.INFO,
        )


def _fits(given: Any, tensor: Tensor) -> bool:
    """Whether a tensor takes what a state dict has for it."""
    if not isinstance(given, Tensor):
        return False
    # PyTorch takes one number for a scalar.
    return given.shape == tensor.shape or (tensor.dim() == 0 and given.shape == (1,))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
