# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Mistakes in what a config says of the optimizer, told before anything is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS, Registry
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from mmfakd.compat.build_errors import unknown_type
from mmfakd.messages import near_names, quoted

# By `type` of `clip_grad`.
_CLIPS: dict[str, Callable[..., Any]] = dict(
    norm=clip_grad_norm_, value=clip_grad_value_
)


def check_optimizer(wrapper: Any, scope: str | None = None) -> None:
    """Check the optimizer and its wrapper, which fail at the first step or never.

    Args:
        wrapper (Any): ``optim_wrapper`` of a config; what is no dict is not looked at.
        scope (str, optional): The config's ``default_scope``.

    Raises:
        KeyError: If there is no such wrapper or optimizer; near names are listed.
        ValueError: If the learning rate is no finite number, or gradients are to be
            accumulated or clipped in a way that there is none of.
    """
    if not isinstance(wrapper, dict):
        return
    kind = _registered(OPTIM_WRAPPERS, wrapper.get('type', 'OptimWrapper'), scope)
    optimizer = wrapper.get('optimizer')
    if isinstance(optimizer, dict):
        _registered(OPTIMIZERS, optimizer.get('type'), scope)
        _check_numbers(optimizer)
    count = wrapper.get('accumulative_counts', 1)
    if not is_whole(count):
        raise ValueError(
            f'optim_wrapper has accumulative_counts={count!r}; expected a whole number '
            'above 0, 1 for a step of the optimizer after each batch.'
        )
    # Wrappers that clip in another way take other arguments.
    if getattr(kind, '_clip_grad', None) is OptimWrapper._clip_grad:
        _check_clip(wrapper.get('clip_grad'))


def is_whole(value: Any) -> bool:
    """Tell whether something can be counted by.

    Args:
        value (Any): What a config has.

    Returns:
        bool: Whether it is a whole number above 0.
    """
    return isinstance(value, (int, float)) and value % 1 == 0 and value > 0


def _registered(registry: Registry, kind: Any, scope: str | None) -> Any:
    """The class of a type; MMEngine asks for its arguments before it says "none"."""
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as found:
        registered = found.get(kind)
        if registered is None:
            raise KeyError(unknown_type(found, kind))
    return registered


def _check_numbers(optimizer: Mapping) -> None:
    """Check what optimizers take without a word, as `nan < 0` is false."""
    for key, value in optimizer.items():
        if key in ('lr', 'weight_decay', 'momentum') and isinstance(value, str):
            raise ValueError(
                f'optim_wrapper.optimizer has {key}={value!r}, a text; expected a '
                'number. In YAML a dot makes it one: 1.0e-3, not 1e-3.'
            )
        # Infinite is only what some optimizers bound other things by.
        odd = math.isnan if key != 'lr' else lambda number: not math.isfinite(number)
        if isinstance(value, float) and odd(value):
            raise ValueError(
                f'optim_wrapper.optimizer has {key}={value!r}; expected a finite '
                'number.'
            )


def _check_clip(clip: Any) -> None:
    """Check arguments that torch gets with the first step."""
    if clip is None:
        return
    kind = clip.get('type', 'norm') if isinstance(clip, dict) else None
    if kind not in _CLIPS:
        raise ValueError(
            f'optim_wrapper has clip_grad={clip!r}; expected dict(max_norm=35), or '
            "dict(type='value', clip_value=1), or None."
        )
    parameters = dict(signature(_CLIPS[kind]).parameters)
    parameters.pop('parameters')
    for key in clip.keys() - parameters.keys() - {'type'}:
        raise ValueError(
            f'optim_wrapper.clip_grad got {key}={clip[key]!r}, which '
            f'torch.nn.utils.clip_grad_{kind}_ does not take. Near names: '
            f'{quoted(near_names(key, parameters))}. It takes {quoted(parameters)}.'
        )
    for key, parameter in parameters.items():
        value = clip.get(key)
        number = isinstance(value, (int, float)) and value > 0
        if parameter.default is Parameter.empty and not number:
            raise ValueError(
                f'optim_wrapper.clip_grad has {key}={value!r}; expected a number above '
                '0, that gradients are clipped at.'
            )
