# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The fastest of several ways to compute something, found by measurement."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor

from .choice_file import ChoiceFile
from .compare_ways import compare, results_of, seconds_of
from .operation import Operation
from .shared_choices import SharedChoices

# What may be said in the environment, as MMFAKD_WAYS.
MODES = ('auto', 'measure', 'reference')
# A way must be so much faster than the reference to take its place.
_MARGIN = 0.95
# How many ways are compared in rounds, those that were the fastest once.
_FINALISTS, _ROUNDS = 3, 5
# Sizes of an operation that are measured on a device; others are taken for the most
# similar of them.
_MOST = 48


def mode_of_environment() -> str:
    """Read what the environment says of choosing, in ``MMFAKD_WAYS``.

    Returns:
        str: One of :data:`MODES`; ``'auto'`` where it says nothing.

    Raises:
        ValueError: If it says something else.
    """
    mode = os.environ.get('MMFAKD_WAYS', 'auto')
    if mode not in MODES:
        raise ValueError(
            f'MMFAKD_WAYS={mode!r} in the environment; expected one of {MODES}. Set it '
            'to one of them, or leave it out: `unset MMFAKD_WAYS`.'
        )
    return mode


class Chooser:
    """Chooses among the ways of operations, as cuDNN's benchmark mode does.

    Where an operation meets inputs of a size, dtype and device for the first time, all
    ways that are usable compute it and its gradients. Those whose results differ from
    the reference's by more than rounding, or that fail, are dropped for good, with a
    warning; of the others the fastest is kept, if it is faster than the reference.
    What was chosen is kept in a file, and is the same in all processes of a training.

    The mode comes from the environment's ``MMFAKD_WAYS``: with ``'auto'``, the
    default, GPUs choose and CPUs do not, whose references are as fast as what they
    could choose; with ``'measure'`` both do, with ``'reference'`` neither. Nor does
    anything choose where PyTorch's deterministic algorithms are asked for.

    Args:
        file (ChoiceFile, optional): Where choices are kept.
        timer (Callable): Seconds that a call takes on a device. Defaults to
            :func:`~.compare_ways.seconds_of`.
        mode (str, optional): In place of the environment's.

    Raises:
        ValueError: If there is no such mode.
    """

    def __init__(
        self,
        file: ChoiceFile | None = None,
        timer: Callable[[Callable[[], object], torch.device], float] = seconds_of,
        mode: str | None = None,
    ) -> None:
        if mode and mode not in MODES:
            raise ValueError(f'mode={mode!r}; expected one of {MODES}.')
        self.file = file or ChoiceFile()
        self.shared = SharedChoices()
        self.timer, self.mode = timer, mode
        # Seconds that measuring has taken, and what was chosen and not yet told.
        self.seconds = 0.0
        self.news: list[str] = []
        self._known: dict[tuple, str] = {}
        self._dropped: set[tuple[str, str]] = set()
        self._forced: Mapping[str, str | Callable[..., str]] = {}

    def run(self, operation: Operation, *inputs: Any) -> Tensor:
        """Compute an operation in the way that was chosen for it.

        Args:
            operation (Operation): The operation.
            *inputs (Any): Its inputs, a tensor first.

        Returns:
            Tensor: Its output.
        """
        forced = self._forced.get(operation.name)
        if forced is not None:
            name = forced if isinstance(forced, str) else forced(*inputs)
            return operation.ways[name].run(*inputs)
        reference = operation.reference(*inputs)
        name = self._choose(operation, inputs, reference)
        if name == reference:
            return operation.ways[name].run(*inputs)
        try:
            return operation.ways[name].run(*inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            if _ends_a_recomputation(error):
                raise
            self.drop(operation.name, name, error)
            self._known[operation.key(inputs)] = reference
            return operation.ways[reference].run(*inputs)

    def choose(self, operation: Operation, inputs: tuple[Any, ...]) -> str:
        """Name the way to compute an operation in; measures where none is known.

        Args:
            operation (Operation): The operation.
            inputs (tuple): Its inputs, a tensor first.

        Returns:
            str: The way.
        """
        return self._choose(operation, inputs, operation.reference(*inputs))

    def _choose(
        self, operation: Operation, inputs: tuple[Any, ...], reference: str
    ) -> str:
        if not self._chooses(inputs[0].device):
            return reference
        key = operation.key(inputs)
        name = self._known.get(key)
        if name is None and self._may_measure(inputs):
            try:
                name = self._decide(operation, inputs, reference)
            except torch.cuda.OutOfMemoryError:
                # The step itself, which keeps less at a time, may have enough.
                torch.cuda.empty_cache()
                name = reference
            if name is not None:
                # For good: a checkpoint computes the same again as before.
                self._known[key] = name
        return reference if name is None else name

    def drop(self, operation: str, way: str, error: Exception) -> None:
        """Leave a way alone from now on, and say so once.

        Args:
            operation (str): Name of the operation.
            way (str): Name of the way.
            error (Exception): What is wrong with it.
        """
        if (operation, way) in self._dropped:
            return
        self._dropped.add((operation, way))
        warnings.warn(
            f'The way {way!r} to compute {operation!r} is dropped here, and another '
            f'one taken: {type(error).__name__}: {error}\n'
            'With MMFAKD_WAYS=reference in the environment no other way is tried.'
        )

    @contextmanager
    def forcing(self, ways: Mapping[str, str | Callable[..., str]]) -> Iterator[None]:
        """Compute operations in given ways, for measurements and tests.

        Args:
            ways (Mapping[str, str | Callable]): Name of an operation -> name of its
                way, or what names it for inputs.

        Yields:
            None: Nothing; within the context these ways are taken.
        """
        before, self._forced = self._forced, {**self._forced, **ways}
        try:
            yield
        finally:
            self._forced = before

    def tell(self) -> str:
        """Tell what has been chosen since the last time.

        Returns:
            str: A sentence; empty where nothing has.
        """
        news, self.news = self.news, []
        if not news:
            return ''
        kept = f'kept in {self.file.path}' if self.file.is_kept else 'not kept'
        took = f'{self.seconds:.1f} s so far'
        return f'Chosen by measurement ({took}, {kept}): {"; ".join(news)}'

    def _chooses(self, device: torch.device) -> bool:
        mode = self.mode or mode_of_environment()
        if mode == 'reference' or torch.are_deterministic_algorithms_enabled():
            return False
        return device.type == 'cuda' or (device.type == 'cpu' and mode == 'measure')

    def _may_measure(self, inputs: tuple[Any, ...]) -> bool:
        """Whether a step of training is running that can be kept waiting."""
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return False
        if not any(isinstance(z, Tensor) and z.requires_grad for z in inputs):
            return False
        if any(isinstance(z, Tensor) and not z.numel() for z in inputs):
            return False
        device = inputs[0].device
        return device.type != 'cuda' or not torch.cuda.is_current_stream_capturing()

    def _decide(
        self, operation: Operation, inputs: tuple[Any, ...], reference: str
    ) -> str | None:
        """Choose for inputs of a new size, as other processes do; None for later."""
        expected = results_of(operation.ways[reference].run, inputs)
        if not all(z.isfinite().all() for z in expected):
            # Nothing to compare with, as where loss scaling overflows.
            return None
        start, label = time.perf_counter(), operation.label(inputs)
        known = self.shared.get(label)
        name = known or self._similar(operation, inputs) or self.file.get(label)
        kept = name is not None
        if name is None:
            name = self._measure(operation, inputs, reference, expected)
        if known is None:
            name = self.shared.put(label, name)
        # What another process has found is tried before it is relied on.
        if name != reference and name not in self._right(
            operation, inputs, expected, [name]
        ):
            name = reference
        elif not kept:
            self.file.put(label, name)
        self.seconds += time.perf_counter() - start
        if name != reference:
            self.news.append(f'{label}: {name}')
        return name

    def _similar(self, operation: Operation, inputs: tuple[Any, ...]) -> str | None:
        """What was chosen for the nearest size, where enough of them were measured."""
        key = operation.key(inputs)
        known = [k for k in self._known if k[:3] == key[:3]]
        if len(known) < _MOST:
            return None
        size = _numbers(key)
        return self._known[min(known, key=lambda k: abs(_numbers(k) - size))]

    def _right(
        self,
        operation: Operation,
        inputs: tuple[Any, ...],
        expected: list[Tensor],
        names: Iterable[str],
    ) -> list[str]:
        """Those of some ways that compute what the reference does; drops the others."""
        right = []
        for name in names:
            way = operation.ways.get(name)
            dropped = (operation.name, name) in self._dropped
            if way is None or dropped or not way.usable(*inputs):
                continue
            try:
                compare(results_of(way.run, inputs), expected)
            except torch.cuda.OutOfMemoryError:
                # No fault of the way's, but it is of no use here.
                torch.cuda.empty_cache()
            except Exception as error:
                self.drop(operation.name, name, error)
            else:
                right.append(name)
        return right

    def _measure(
        self,
        operation: Operation,
        inputs: tuple[Any, ...],
        reference: str,
        expected: list[Tensor],
    ) -> str:
        """Name the fastest of all ways that compute the same."""
        others = [name for name in operation.ways if name != reference]
        names = self._right(operation, inputs, expected, others)
        if not names:
            return reference
        device, least = inputs[0].device, dict[str, float]()

        def time_all(names: Iterable[str]) -> None:
            for name in names:
                run = partial(results_of, operation.ways[name].run, inputs)
                seconds = self.timer(run, device)
                least[name] = min(seconds, least.get(name, seconds))

        time_all([reference, *names])
        names = sorted(names, key=lambda name: least[name])[:_FINALISTS]
        for index in range(_ROUNDS):
            turns = [reference, *names]
            time_all(turns if index % 2 == 0 else reversed(turns))
        fastest = min(names, key=lambda name: least[name])
        faster = least[fastest] < _MARGIN * least[reference]
        return fastest if faster else reference


def _ends_a_recomputation(error: Exception) -> bool:
    """Whether torch's checkpointing has all that it wants, and says so by raising."""
    return type(error).__module__ == torch.utils.checkpoint.__name__


def _numbers(key: tuple) -> int:
    """Numbers of the first tensor of a key."""
    return key[3][0].numel()


CHOOSER = Chooser()
