# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Finds out why nothing of a feature reaches the weights of its model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .idle_parameters import reached_parameters

# What libraries call the switch of gradient checkpointing.
_SWITCHES = (
    'with_cp',
    'use_checkpoint',
    'use_checkpointing',
    'gradient_checkpointing',
    'grad_checkpointing',
    'checkpointing',
)


class _Call(NamedTuple):
    """A module's call: its name, whether gradients were on, and within a checkpoint."""

    name: str
    gradients: bool
    in_checkpoint: bool


def why_unreached(
    student: nn.Module,
    source: str,
    feature: Tensor,
    learning: Collection[int],
    run: Callable[[], Any],
) -> str:
    """Run a model once more and look where the graph of a layer's output ends.

    Args:
        student (nn.Module): The model.
        source (str): Name of the recorded layer, '' if it is of no module.
        feature (Tensor): What was recorded.
        learning (Collection[int]): Identities of the parameters that learn.
        run (Callable): Runs the model as in training.

    Returns:
        str: The likely cause, and what to do.
    """
    modules = dict(student.named_modules())
    if source not in modules or not source:
        return _unknown(feature)
    trace = _Trace(student, source)
    with suppress(Exception):
        trace.follow(run)
    call = next((c for c in trace.entered if c.name == source), None)
    if call is None:
        return _unknown(feature)
    if call.in_checkpoint and not call.gradients:
        return _checkpointed(trace, modules, source)
    if not call.gradients:
        outer = trace.outermost_with_gradients(source)
        return (
            f'it is evaluated under `torch.no_grad()`, within the forward pass of '
            f'{outer or "the model"!r}. Let that part of the student compute gradients.'
        )
    called = {c.name for c in trace.entered[: trace.entered.index(call) + 1]}
    # What the layer calls itself comes after it.
    called |= {c.name for c in trace.entered if c.name.startswith(f'{source}.')}
    above = [p for n in called for p in modules[n].parameters(recurse=False)]
    if not any(id(p) in learning for p in above):
        return _frozen(modules, source, above)
    if any(id(p) in learning for p in reached_parameters(trace.output)):
        return (
            'its output has a graph, but what was recorded has none: the recorder '
            'holds a detached or an older tensor. Record the layer with '
            'mmrazor.ModuleOutputs.'
        )
    last = trace.last_with_graph
    behind = f' behind {last!r}' if last else ''
    return (
        f'the graph ends{behind}: a `detach()` or a part under `torch.no_grad()` lies '
        'between the weights that learn and this layer. Record a layer before that, or '
        'take it out.'
    )


class _Trace:
    """Which modules a forward pass calls, and what they return."""

    def __init__(self, student: nn.Module, source: str) -> None:
        self.student, self.source = student, source
        self.entered: list[_Call] = []
        self.output: list[Tensor] = []
        self.last_with_graph = ''

    def follow(self, run: Callable[[], Any]) -> None:
        """Run the model, hooks on."""
        with ExitStack() as stack, torch.enable_grad():
            for name, module in self.student.named_modules():
                before = module.register_forward_pre_hook(self._enter(name))
                after = module.register_forward_hook(self._leave(name))
                stack.callback(before.remove)
                stack.callback(after.remove)
            run()

    def outermost_with_gradients(self, source: str) -> str:
        """The innermost module around a layer that still computes gradients."""
        on = {call.name for call in self.entered if call.gradients}
        parts = source.split('.')
        around = ['.'.join(parts[:i]) for i in range(len(parts), 0, -1)]
        return next((name for name in around if name in on and name != source), '')

    def _enter(self, name: str) -> Callable:
        def hook(*args: Any) -> None:
            call = _Call(name, torch.is_grad_enabled(), _in_checkpoint())
            self.entered.append(call)

        return hook

    def _leave(self, name: str) -> Callable:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self.output:
                return
            tensors = output if isinstance(output, (tuple, list)) else [output]
            tensors = [t for t in tensors if isinstance(t, Tensor)]
            with_graph = any(t.requires_grad for t in tensors)
            if name == self.source:
                self.output = tensors
            elif with_graph and name:
                self.last_with_graph = name

        return hook


def _in_checkpoint() -> bool:
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.replace('\\', '/').endswith('utils/checkpoint.py'):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _checkpointed(trace: _Trace, modules: dict[str, nn.Module], source: str) -> str:
    outer = trace.outermost_with_gradients(source)
    parts = source.split('.')
    around = ['.'.join(parts[:i]) for i in range(len(parts), 0, -1)]
    switches = [
        f'`{switch}=True` of {name!r}'
        for name in around
        for switch in _SWITCHES
        if getattr(modules.get(name), switch, False) is True
    ]
    which = f' ({switches[0]})' if switches else ''
    whole = f'Record {outer!r} as a whole, ' if outer else 'Record a layer behind it, '
    return (
        f'it lies inside a re-entrant checkpoint{which}, whose first pass runs without '
        f'gradients. {whole}switch checkpointing off there, or checkpoint with '
        'use_reentrant=False.'
    )


def _frozen(modules: dict[str, nn.Module], source: str, above: list) -> str:
    numbers: dict[str, Any] = {
        name: getattr(module, 'frozen_stages', None) for name, module in modules.items()
    }
    stages = [
        f'`frozen_stages={number}` of {name or "the model"!r}'
        for name, number in numbers.items()
        if isinstance(number, int) and number >= 0
    ]
    free = [p for p in above if p.requires_grad]
    count = sum(p.numel() for p in above)
    if not above:
        what = 'no weights lie before it'
    elif free:
        what = (
            f'the optimizer moves none of the {count:,} weights up to it (`lr_mult=0`, '
            'a learning rate of 0, or they are left out)'
        )
    else:
        what = f'all {count:,} weights up to it are frozen (`requires_grad=False`)'
        if stages:
            what += f', by {" and ".join(stages)}'
    return (
        f'{what}. Distil deeper layers, or let these learn'
        f'{" (`frozen_stages=-1`)" if stages else ""}.'
    )


def _unknown(feature: Tensor) -> str:
    state = 'has no graph' if not feature.requires_grad else 'has a graph without them'
    return (
        f'what was recorded {state}: frozen stages, a re-entrant checkpoint around the '
        'recorded layer (`with_cp=True`), `detach()`, or a part under '
        '`torch.no_grad()`.'
    )
