# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Arguments of any model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

from .autocast import autocast_dtype
from .layer import tensors_in

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def arguments_of(example: Any) -> Arguments:
    """Take an example input apart.

    Args:
        example (Any): A tuple of positional arguments, a mapping of keyword arguments,
            or the one argument.

    Returns:
        tuple[tuple, dict]: Positional and keyword arguments.
    """
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        return (), dict(example)
    return (example,), {}


def fitted(value: Any, model: nn.Module) -> Any:
    """Bring arguments to where a model is and, without autocast, to its precision.

    Args:
        value (Any): A tensor, or tuples, lists and mappings of them, or anything else.
        model (nn.Module): The model.

    Returns:
        Any: The same there; itself where all of it is there already.
    """
    like = next((x for x in _weights(model) if x.is_floating_point()), None)
    return value if like is None else matched(value, like)


def matched(value: Any, like: Tensor) -> Any:
    """Bring tensors to the device and, without autocast, to the precision of another.

    Args:
        value (Any): A tensor, or tuples, lists and mappings of them, or anything else.
        like (Tensor): The other one.

    Returns:
        Any: The same there; itself where all of it is there already.
    """
    if isinstance(value, Tensor):
        cast = value.is_floating_point() and not autocast_dtype(like.device.type)
        return moved(value, like.device, like.dtype if cast else None)
    if not isinstance(value, (Mapping, tuple, list)):
        return value
    if all(matched(x, like) is x for _, x in tensors_in(value)):
        return value
    if isinstance(value, Mapping):
        return {key: matched(item, like) for key, item in value.items()}
    if hasattr(value, '_fields'):
        return type(value)(*(matched(item, like) for item in value))
    return type(value)(matched(item, like) for item in value)


def moved(value: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """Bring a tensor to a device, without a wait where nothing reads it too early.

    From a GPU to the host PyTorch does not wait for the values
    (https://github.com/pytorch/pytorch/issues/127612).

    Args:
        value (Tensor): The tensor.
        device (torch.device): The device.
        dtype (torch.dtype, optional): Its new type. None: the same.

    Returns:
        Tensor: The same there; itself where it is there already.
    """
    return value.to(device, dtype, non_blocking=device.type != 'cpu')


def device_of(model: nn.Module) -> torch.device | None:
    """Tell where a model is.

    Args:
        model (nn.Module): The model.

    Returns:
        torch.device | None: The device of its first parameter or buffer, if any.
    """
    return next((tensor.device for tensor in _weights(model)), None)


def _weights(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def telling(value: Any) -> Any:
    """Replace constant images, such as zeros, by noise, which shows more of a model.

    Args:
        value (Any): Arguments.

    Returns:
        Any: The same, with noise for tensors (N, C, H, W) whose values are all equal.
    """
    if isinstance(value, Tensor):
        plain = value.dim() == 4 and value.is_floating_point() and value.numel()
        if not plain or bool((value != value.flatten()[0]).any()):
            return value
        generator = torch.Generator().manual_seed(0)
        # Whatever device is the default: generators draw on their own.
        noise = torch.randn(value.shape, generator=generator, device='cpu')
        return noise.to(value.device, value.dtype)
    if isinstance(value, Mapping):
        return {key: telling(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(telling(item) for item in value)
    return value


def _eager() -> Any:
    """No compiling, in versions of torch that can be told so."""
    stance = getattr(torch.compiler, 'set_stance', None)
    return nullcontext() if stance is None else stance('force_eager')


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode, without gradient, and leave no trace.

    Args:
        model (nn.Module): The model.

    Yields:
        None: Nothing.
    """
    modes = {module: module.training for module in model.modules()}
    learns = {weight: weight.requires_grad for weight in model.parameters()}
    device = device_of(model)
    devices = [device] if device is not None and device.type == 'cuda' else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), _eager():
            yield
    finally:
        _put_back(modes)
        for weight, learned in learns.items():
            weight.requires_grad_(learned)


def _put_back(modes: dict[nn.Module, bool]) -> None:
    """Give modules their modes, from the outermost in."""
    for module, mode in modes.items():
        own = type(module).train is not nn.Module.train
        if own and module.training != mode:
            # Undoes what `eval` has done beside, as weights that adapters merge. One
            # that refuses has a mode nevertheless.
            with suppress(Exception):
                module.train(mode)
    # What these set in the modules within them may be another mode.
    for module, mode in modes.items():
        module.training = mode
