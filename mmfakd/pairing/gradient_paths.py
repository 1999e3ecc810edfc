# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which tensors a training step's gradients reach parameters from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn


class GradientPaths:
    """Follows the graph of a training step back to the parameters that learn.

    Args:
        parameters (Iterable[nn.Parameter]): The parameters that learn.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._learning = {id(parameter) for parameter in parameters}
        # Nodes are kept, so that none takes another's place.
        self._known: dict[Any, bool] = {}

    def reach(self, tensor: Tensor) -> bool:
        """Tell whether gradients flow back from a tensor to a parameter that learns.

        Args:
            tensor (Tensor): A tensor of the step, before its backward pass.

        Returns:
            bool: Whether they do.
        """
        if tensor.grad_fn is None:
            return id(tensor) in self._learning
        stack = [tensor.grad_fn]
        while stack:
            node = stack[-1]
            before = [n for n, _ in node.next_functions if n is not None]
            if node not in self._known:
                self._known[node] = self._ends(node)
                stack += [n for n in before if n not in self._known]
                continue
            self._known[node] |= any(self._known[n] for n in before)
            stack.pop()
        return self._known[tensor.grad_fn]

    def _ends(self, node: Any) -> bool:
        """Whether a node is a parameter that learns, or has some in it."""
        if hasattr(node, 'variable'):
            return id(node.variable) in self._learning
        # Re-entrant checkpointing and reversible blocks run their layers again in the
        # backward pass, out of the graph's sight.
        return any(map(_is_runnable, getattr(node, '__dict__', {}).values()))


def learning_parameters(
    model: BaseModel, cfg: Config | None = None
) -> Iterator[nn.Parameter]:
    """List the parameters that a config's optimizer moves.

    Args:
        model (BaseModel): The model in training mode, which may freeze a part of it.
        cfg (Config, optional): Its config. Defaults to None.

    Yields:
        nn.Parameter: Those that need a gradient and have a learning rate above zero.
    """
    still = _without_rate(model, cfg) if cfg else set()
    for parameter in model.parameters():
        if parameter.requires_grad and id(parameter) not in still:
            yield parameter


def _without_rate(model: BaseModel, cfg: Config) -> set[int]:
    """Parameters whose learning rate is zero, as ``lr_mult=0`` makes it."""
    wrapper = cfg.get('optim_wrapper') or {}
    paramwise = wrapper.get('paramwise_cfg')
    if not paramwise or not any(_zero_rates(paramwise)):
        return set()
    kept = ('optimizer', 'paramwise_cfg', 'constructor')
    plain = {key: wrapper[key] for key in kept if key in wrapper}
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            built = build_optim_wrapper(model, ConfigDict(plain))
    except Exception:
        # It is the student's own, and training it will say what is wrong.
        return set()
    groups = built.optimizer.param_groups
    return {id(p) for group in groups if group['lr'] == 0 for p in group['params']}


def _zero_rates(settings: Any) -> Iterator[bool]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _zero_rates(value)
        else:
            yield key.endswith(('lr_mult', 'rate', 'lr')) and value == 0


def _is_runnable(value: Any) -> bool:
    parts = value if isinstance(value, (tuple, list, nn.ModuleList)) else [value]
    return any(callable(part) and not isinstance(part, type) for part in parts)
