# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Time and peak memory of several ways to compute one thing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.benchmark import Measurement, Timer

from mmfakd.engine.devices import find_device

_SECOND = 'second call'


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        device (str): ``'cpu'``, ``'cuda'``, or ``'meta'``, where nothing is computed.
        amp (str): ``'none'``, or the dtype of mixed precision, ``'float16'`` or
            ``'bfloat16'``.
        threads (int): Threads of the CPU.
        rounds (int): Blocks of calls that each side gets.
        min_time (float): Seconds that a block lasts, at least about.

    Raises:
        ValueError: If the device is not there, or cannot do what is asked for.
    """

    device: str = 'cpu'
    amp: str = 'none'
    threads: int = 1
    rounds: int = 11
    min_time: float = 0.2

    def __post_init__(self) -> None:
        # On 'meta' nothing is computed.
        if self.device != 'meta':
            find_device(self.device)
        if self.device == 'cpu' and self.amp == 'float16':
            raise ValueError(
                '--amp float16: on a CPU training has no half precision but bfloat16; '
                'take that, or --device cuda.'
            )

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of features as a network in that precision yields them."""
        return torch.float32 if self.amp == 'none' else getattr(torch, self.amp)

    def autocast(self) -> Any:
        """Give the context, or decorator, of forward passes."""
        if self.amp == 'none':
            return nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Side:
    """One way to compute a thing.

    Attributes:
        name (str): Its name.
        run (Callable): Computes it once and leaves nothing behind that it had not
            found, gradients included.
        parameters (int): Real numbers that are learned.
        modules (Sequence[nn.Module]): What computes it, where that is asked for.
        held (Callable, optional): Counts the bytes that it holds between two calls,
            after the first one. Defaults to None: the parameters and nothing else.
    """

    name: str
    run: Callable[[], object]
    parameters: int
    modules: Sequence[nn.Module] = ()
    held: Callable[[], int] | None = None


@dataclass(frozen=True)
class Case:
    """A thing to compute, at one size.

    Attributes:
        name (str): Its name, unique in its suite.
        build (Callable): Builds the sides. The others are compared with the first.
        settings (dict): What the name says, as numbers.
        measure (Callable, optional): What to do with the case in place of
            :func:`measure`, called like it.
    """

    name: str
    build: Callable[[], list[Side]]
    settings: dict[str, Any] = field(default_factory=dict)
    measure: Callable[[Case, Options], dict] | None = None


def measure(case: Case, options: Options) -> dict:
    """Measure the sides of a case against one another.

    The sides take turns, block by block, and every second round goes backwards, so
    that a machine that slows down or is busy hits all of them. A ratio is that of
    two blocks of one round; its spread is that of the rounds.

    Args:
        case (Case): The case.
        options (Options): How to measure.

    Returns:
        dict: ``name``, the settings and ``sides``, in the order of the case, each
        with ``name``, ``parameters``, ``peak_bytes``, ``held_bytes`` (where the side
        counts them), ``calls`` (in a block),
        ``seconds`` (of one call) and, with reference to the first side, ``time_ratio``,
        ``memory_ratio`` (None where nothing was allocated) and ``parameter_ratio``.
        ``seconds`` and ``time_ratio`` hold ``median``, ``q1``, ``q3``, ``iqr`` and
        ``rounds``.
    """
    # Models refer to themselves in places, and the case before may have been large.
    gc.collect()
    if case.measure is not None:
        return case.measure(case, options)
    sides = case.build()
    # What waits to be freed must not be freed meanwhile; `Timer` sees to it itself.
    gc.disable()
    try:
        # Measured first, it also warms up.
        peaks = [peak_bytes(side.run, options.device) for side in sides]
    finally:
        gc.enable()
    timer_of = partial(Timer, 'run()', num_threads=options.threads)
    timers = [timer_of(globals={'run': side.run}) for side in sides]
    seconds = [timer.timeit(1).median for timer in timers]
    calls = [max(1, round(options.min_time / second)) for second in seconds]
    blocks: list[list[Measurement]] = [[] for _ in sides]
    for index in range(options.rounds):
        order = list(zip(timers, calls, blocks))
        for timer, count, done in order if index % 2 == 0 else reversed(order):
            done.append(timer.timeit(count))
    results = []
    for side, count, peak, done in zip(sides, calls, peaks, blocks):
        ratios = [mine.median / base.median for mine, base in zip(done, blocks[0])]
        results.append(
            dict(
                name=side.name,
                time_ratio=_statistics(ratios),
                memory_ratio=peak / peaks[0] if peaks[0] else None,
                parameter_ratio=side.parameters / sides[0].parameters,
                seconds=_statistics([block.median for block in done]),
                calls=count,
                peak_bytes=peak,
                parameters=side.parameters,
                **({} if side.held is None else dict(held_bytes=side.held())),
            )
        )
    return dict(name=case.name, **case.settings, sides=results)


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """Measure how much memory a call takes at once.

    On a GPU from the statistics of torch's allocator. The CPU's keeps none, so the
    profiler lists what it gives and takes back, and the sum runs along the list. Both
    count tensors, exactly and repeatably, whatever the process has used before, which
    the peak of a process does not; the CPU's leaves out the working memory that
    libraries of Fourier transforms and matrix products get elsewhere.

    Args:
        run (Callable): The call. It is made a few times, and the last one counts.
        device (str): ``'cpu'`` or ``'cuda'``.

    Returns:
        int: Bytes beyond those that were allocated before.
    """
    run()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        # Twice, as the size of what was allocated before is not known when it is
        # given back.
        run()
        with torch.autograd.profiler.record_function(_SECOND):
            run()
    results = profile.kineto_results
    assert results is not None
    total = before = peak = 0
    for event in sorted(results.events(), key=_moment):
        if event.name() == '[memory]':
            total += event.nbytes()
            peak = max(peak, total)
        elif event.name() == _SECOND:
            before = peak = total
    return peak - before


def count_learned(module: nn.Module) -> int:
    """Count the real numbers that a module learns.

    Args:
        module (nn.Module): The module.

    Returns:
        int: Their number; a complex one counts twice.
    """
    return sum(
        p.numel() * (2 if p.is_complex() else 1)
        for p in module.parameters()
        if p.requires_grad
    )


def held_bytes(modules: Iterable[nn.Module], optimizer: Optimizer) -> int:
    """Count what a training holds between two steps.

    Args:
        modules (Iterable[nn.Module]): What is trained, and the teacher.
        optimizer (Optimizer): The optimizer, which has made a step.

    Returns:
        int: Bytes of parameters, buffers and the optimizer's state. A tensor that
        several have counts once.
    """
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    states = (value for state in optimizer.state.values() for value in state.values())
    tensors += [value for value in states if isinstance(value, Tensor)]
    counted = {id(tensor): tensor for tensor in tensors}.values()
    return sum(tensor.numel() * tensor.element_size() for tensor in counted)


def side_bytes(side: Mapping[str, Any]) -> int:
    """Add what a measured side holds to the most that it takes beyond that.

    Args:
        side (Mapping[str, Any]): One of what :func:`measure` returned.

    Returns:
        int: Bytes; without ``held_bytes``, as of older versions and of layers, those
        of the parameters count.
    """
    return side['peak_bytes'] + side.get('held_bytes', 4 * side['parameters'])


def training_passes(modules: Mapping[str, nn.Module], *args: Any) -> list[Side]:
    """Make sides of modules that take the same inputs.

    Args:
        modules (Mapping[str, nn.Module]): Name of the side -> module.
        *args (Any): Other arguments of :func:`training_pass`.

    Returns:
        list[Side]: The sides.
    """
    return [training_pass(name, module, *args) for name, module in modules.items()]


def training_pass(
    name: str,
    module: nn.Module,
    inputs: Sequence[Tensor],
    options: Options,
    as_list: bool = False,
) -> Side:
    """Make the forward and backward pass of a module a side.

    The gradients of the outputs are random, so no loss is counted.

    Args:
        name (str): Name of the side.
        module (nn.Module): The module, moved to the device.
        inputs (Sequence[Tensor]): Its inputs, which get gradients.
        options (Options): Device and precision.
        as_list (bool): Whether the module takes the inputs as one list.

    Returns:
        Side: The side.
    """
    module = module.to(options.device).train()
    inputs = [
        x.to(options.device, options.dtype).detach().requires_grad_() for x in inputs
    ]

    def forward() -> Sequence[Tensor]:
        with options.autocast():
            outputs = module(inputs) if as_list else module(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else outputs

    with torch.no_grad():
        gradients = [torch.randn_like(output) for output in forward()]
    learned = [*inputs, *module.parameters()]

    def run() -> None:
        torch.autograd.backward(forward(), gradients)
        for tensor in learned:
            tensor.grad = None

    return Side(name, run, count_learned(module), [module])


def _moment(event: Any) -> int:
    # torch 2.1 has microseconds; the sort keeps the order within one.
    return event.start_ns() if hasattr(event, 'start_ns') else event.start_us()


def _statistics(values: Sequence[float]) -> dict:
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return dict(median=median, q1=q1, q3=q3, iqr=q3 - q1, rounds=list(values))
