# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Parameters that no loss of a step reaches: they are told, and stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from mmfakd.models.distillers.graph_nodes import graph_nodes
from mmfakd.ops.compiling import is_compiling


def keep_idle(losses: dict[str, Tensor], model: nn.Module) -> list[nn.Parameter]:
    """Let parallel wrappers go without a gradient of what no loss reaches.

    DDP waits for a gradient of every parameter. Those that no loss depends on get one
    of zero, which is gone when the backward pass ends: to an optimizer they look as
    they do in one process, so that neither its momentum nor its weight decay moves
    them.

    Args:
        losses (dict[str, Tensor]): The losses of the step; the first gets a zero added.
        model (nn.Module): The model whose parameters may be idle.

    Returns:
        list[nn.Parameter]: The idle ones.
    """
    found = {k: v for k, v in losses.items() if 'loss' in k and isinstance(v, Tensor)}
    # A compiled step is not to be cut into more graphs.
    if is_compiling() or not any(loss.requires_grad for loss in found.values()):
        return []
    reached = {id(p) for p in reached_parameters(found.values())}
    learning = [p for p in model.parameters() if p.requires_grad]
    idle = [p for p in learning if id(p) not in reached]
    if idle:
        name, loss = next(iter(found.items()))
        losses[name] = loss + _NoGradient.apply(*idle).to(loss)
    return idle


def reached_parameters(losses: Iterable[Tensor]) -> Iterator[Tensor]:
    """Find the parameters that losses depend on, by the graph behind them.

    Args:
        losses (Iterable[Tensor]): The losses, scalars.

    Yields:
        Tensor: Each parameter, once or more. A re-entrant checkpoint hides its own:
        then all of the modules whose forward pass it runs count.
    """
    for node in graph_nodes(losses):
        if hasattr(node, 'variable'):
            yield node.variable
        if hasattr(node, 'run_function'):
            for module in _modules_of(node.run_function):
                yield from module.parameters()


def name_whole(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[str]:
    """Name some parameters, by a module where they are all of its.

    Args:
        model (nn.Module): The model.
        parameters (Sequence[nn.Parameter]): Some of its parameters.

    Returns:
        list[str]: Names of modules and parameters.
    """
    some = {id(p) for p in parameters}

    def walk(module: nn.Module, prefix: str) -> Iterator[str]:
        own = [id(p) for p in module.parameters()]
        if own and prefix and some.issuperset(own):
            yield prefix[:-1]
            return
        for name, parameter in module.named_parameters(prefix[:-1], recurse=False):
            if id(parameter) in some:
                yield name
        for name, child in module.named_children():
            yield from walk(child, f'{prefix}{name}.')

    return list(walk(model, ''))


class _NoGradient(torch.autograd.Function):
    """Zero, with a gradient of zero that is taken back after the backward pass."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        # Within a cycle of gradient accumulation there may be one of an earlier step.
        ctx.without = [p for p in parameters if p.grad is None]
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        queue = Variable._execution_engine.queue_callback

        def take_back() -> None:
            for parameter in ctx.without:
                parameter.grad = None

        # Twice, so as to be called after what wrappers queue in this backward pass.
        queue(partial(queue, take_back))
        return tuple(torch.zeros_like(p) for p in ctx.parameters)


def _modules_of(function: Any) -> Iterator[nn.Module]:
    """The modules that a function is of, or holds."""
    seen: list[Any] = []
    waiting = [function]
    while waiting:
        one = waiting.pop()
        if any(one is other for other in seen):
            continue
        seen.append(one)
        if isinstance(one, nn.Module):
            yield one
        elif isinstance(one, partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, (list, tuple)):
            waiting += one
        else:
            waiting.append(getattr(one, '__self__', None))
            cells = getattr(one, '__closure__', None) or ()
            waiting += [cell.cell_contents for cell in cells if _is_filled(cell)]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
