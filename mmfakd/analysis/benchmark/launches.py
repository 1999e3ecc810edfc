# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How many operations a step hands to its device, how many bytes they move."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import is_installed
from torch import nn

from mmfakd.messages import progress
from mmfakd.ops import frequency_filter, window_attention
from mmfakd.ops.chooser import CHOOSER
from mmfakd.ops.frequency_filter import FREQUENCY_FILTER
from mmfakd.ops.window_attention import WINDOW_ATTENTION

from .device_work import count_kernels
from .measure import Case, Options, Side
from .operation_counter import Operation, OperationCounter
from .random_batch import random_batch
from .runner_hooks import hook_operations
from .step import (
    build_part,
    floor_step,
    read_distillation,
    training_step,
)
from .step_parts import PARTS, StepParts
from .suites import CONFIGS
from .traffic import measure_traffic, traffic_sides

METHODS = {
    'KD': 'kd',
    'ReviewKD': 'reviewkd',
    'FAM-KD, layer to layer': 'fakd_layer',
    'FAM-KD': 'fakd_review',
}
_CONFIG = 'cifar100/{}_r56_r20_1xb64_cifar100.py'
_BATCH, _PIXELS = 64, 32
# Where maps are as small as this, what an operation computes takes no time. A norm in
# training wants two images.
_TINY_BATCH, _TINY_PIXELS = 2, 8
# Numbers that no cache holds.
_NUMBERS = 2**25
# What is dispatched on a GPU is dispatched on the device without data, too. There the
# reference ways are taken, without Triton, or all of its kernels.
PATHS = {'CPU': 'cpu', 'GPU': 'meta', 'GPU, Triton': 'meta'}


def launch_cases(
    options: Options, batch_size: int | None = None, height: int | None = None
) -> list[Case]:
    """Count the steps of R56-R20 and the connectors of a detector, on either path.

    Args:
        options (Options): Threads and rounds, for what is measured beside.
        batch_size (int, optional): Batch size in place of the configs'.
        height (int, optional): Height of the detector's images in place of 800 pixels.

    Returns:
        list[Case]: They bring their own way to measure.

    Raises:
        ValueError: In mixed precision, which the device without data does not have.
    """
    if options.amp != 'none':
        raise ValueError(
            f'--amp {options.amp}: the suite launches counts in float32; leave it out.'
        )
    batch = batch_size or _BATCH
    cases = []
    for path, device in PATHS.items():
        here = replace(options, device=device)
        sides = partial(step_sides, here, batch, _PIXELS, path)
        settings = dict(path=path, batch=batch, pixels=_PIXELS)
        name = f'R56-R20, batch {batch}, {path} path'
        cases.append(Case(name, sides, settings, partial(count, path=path)))
    cases += _detection_cases(options, batch_size or 2, height)
    steps = partial(step_sides, replace(options, device='cpu'), _TINY_BATCH)
    timed = (('host', _TINY_PIXELS, 'GPU'), ('order', _PIXELS, 'CPU'))
    for name, pixels, path in timed:
        settings = dict(batch=_TINY_BATCH, pixels=pixels, path=path)
        run = partial(time_steps, path=path)
        cases.append(Case(name, partial(steps, pixels, path), settings, run))
    if options.device == 'cuda':
        sides = partial(step_sides, options, batch, _PIXELS)
        settings = dict(batch=batch, pixels=_PIXELS)
        cases.append(Case('kernels', sides, settings, count_kernels))
    traffic = partial(traffic_sides, _NUMBERS)
    cases.append(Case('traffic', traffic, measure=measure_traffic))
    # Last, as a runner leaves behind how far it came.
    return [*cases, Case('hooks', list, measure=count_hooks)]


def step_sides(
    options: Options, batch: int, pixels: int, path: str = 'GPU'
) -> list[Side]:
    """Make sides of the steps of R56-R20: the floor, then each method.

    Args:
        options (Options): Device and precision.
        batch (int): Images of a batch.
        pixels (int): Their side; the filters' grids are in proportion.
        path (str): One of ``PATHS``, for the optimizer. Defaults to ``'GPU'``.

    Returns:
        list[Side]: The sides.
    """
    configs = {name: _config(config, pixels) for name, config in METHODS.items()}
    cfg = configs['KD']
    student = build_part(cfg, 'architecture')
    data = random_batch(cfg, student, batch, (pixels, pixels), options.device)
    for cfg in configs.values():
        # As PyTorch chooses on a GPU.
        cfg.optim_wrapper.optimizer.foreach = path != 'CPU'
    sides = [floor_step(cfg, data, options)]
    for name, cfg in configs.items():
        model = build_part(cfg)
        # The look at the first step is no part of the others.
        model.report = False
        sides.append(training_step(name, model, cfg, data, options))
    return sides


def count(case: Case, options: Options, path: str = 'GPU') -> dict:
    """Count the operations of the sides of a case.

    Args:
        case (Case): The case; its sides name their modules.
        options (Options): Not needed; as of :func:`~.measure.measure`.
        path (str): One of ``PATHS``. Defaults to ``'GPU'``.

    Returns:
        dict: ``name``, the settings and ``sides``, each with ``name``, ``operations``,
        ``read`` and ``written`` (bytes), ``waits`` (how often the host waits),
        ``parts`` (the same by part of the step) and ``names`` (operations by name).
    """
    sides = []
    for side in case.build():
        with ways_of(path):
            operations = list_operations(side)
        total = _sum_up(operations)
        parts = {
            part: _sum_up([o for o in operations if o.part == part])
            for part in PARTS
            if any(o.part == part for o in operations)
        }
        names = Counter(o.name for o in operations)
        sides.append(
            dict(name=side.name, **total, parts=parts, names=dict(names.most_common()))
        )
    return dict(name=case.name, **case.settings, sides=sides)


def ways_of(path: str) -> AbstractContextManager:
    """Let layers compute as on a path, whatever device they are on.

    Args:
        path (str): One of ``PATHS``.

    Returns:
        AbstractContextManager: What to compute in.
    """
    if path == 'CPU':
        return nullcontext()
    kernels = path == 'GPU, Triton'
    ways: dict[str, Callable[..., str]] = {
        FREQUENCY_FILTER.name: frequency_filter.few_operations,
        WINDOW_ATTENTION.name: window_attention.few_operations,
    }
    kernel_ways = {name: partial(way, kernels=kernels) for name, way in ways.items()}
    return CHOOSER.forcing(kernel_ways)


def list_operations(side: Side) -> list[Operation]:
    """List what a side hands to its device once it has warmed up.

    Args:
        side (Side): The side, with its modules.

    Returns:
        list[Operation]: The operations, in their order.
    """
    # What is built once, buffers of the optimizer too, is no part of a step.
    side.run()
    with OperationCounter(_parts_of(side.modules)) as counter:
        side.run()
    return counter.operations


def time_steps(case: Case, options: Options, path: str = 'CPU') -> dict:
    """Count and time the sides of a case on the CPU, as it is or on a GPU's path.

    Of steps of maps so small that they take no time, this is the time that the host
    takes to hand a step to its device: Python, PyTorch's dispatch and autograd, its
    allocations, and a call for each operation, which on a GPU is a launch and takes
    longer. The device without data would not do, as there half of the operations are
    written in Python.

    Args:
        case (Case): The case, on the CPU.
        options (Options): Threads and rounds.
        path (str): One of ``PATHS``. Defaults to ``'CPU'``.

    Returns:
        dict: ``name``, the settings and ``sides``, each with ``name``, ``operations``
        and ``seconds``: of the processor, in rounds in which the sides take turns, the
        least and all of them.
    """
    sides = case.build()
    with ways_of(path):
        return _time(case, sides, options)


def _time(case: Case, sides: list[Side], options: Options) -> dict:
    counts = [_sum_up(list_operations(side))['operations'] for side in sides]
    seconds: list[list[float]] = [[] for _ in sides]
    for index in range(options.rounds):
        order = list(zip(sides, seconds))
        for side, done in order if index % 2 == 0 else reversed(order):
            start = time.thread_time()
            side.run()
            done.append(time.thread_time() - start)
    results = []
    for side, number, done in zip(sides, counts, seconds):
        times = dict(least=min(done), rounds=done)
        results.append(dict(name=side.name, operations=number, seconds=times))
    return dict(name=case.name, **case.settings, sides=results)


def count_hooks(case: Case, options: Options) -> dict:
    """Count what the runner's hooks add to the step of each method.

    Args:
        case (Case): The case, for its name.
        options (Options): Not needed.

    Returns:
        dict: ``name`` and ``sides``, each with ``name`` and the sums of :func:`count`.
    """
    size = _TINY_BATCH, _TINY_PIXELS
    sides = []
    for name, config in METHODS.items():
        operations = hook_operations(_config(config, _TINY_PIXELS), *size)
        sides.append(dict(name=name, **_sum_up(operations)))
    return dict(name=case.name, sides=sides)


def _config(method: str, pixels: int) -> Config:
    """The config of a method, with filters for images of that size."""
    init_default_scope('mmpretrain')
    cfg = read_distillation(CONFIGS / _CONFIG.format(method))
    connector = cfg.model.distiller.get('connector', {})
    if connector.get('sizes'):
        connector.sizes = [max(1, n * pixels // _PIXELS) for n in connector.sizes]
    return cfg


def _detection_cases(options: Options, batch: int, height: int | None) -> list[Case]:
    """Connectors of a detector's five levels."""
    if not is_installed('mmdet'):
        progress('launches: mmdet is not installed; its connectors are left out.')
        return []
    from .detection import HEIGHT, WIDTH, connector_sides

    height = height or HEIGHT
    size = dict(batch=batch, height=height, width=round(height * WIDTH / HEIGHT))
    name = 'connectors of Faster R-CNN R101-R50, batch {batch}, {height} x {width} px'
    return [
        Case(
            f'{name.format(**size)}, {path} path',
            partial(connector_sides, **size, options=replace(options, device=device)),
            dict(size, path=path),
            partial(count, path=path),
        )
        for path, device in PATHS.items()
    ]


def _parts_of(modules: Sequence[nn.Module]) -> StepParts:
    """What tells the parts of a step of some modules."""
    networks: list[nn.Module] = []
    connectors: list[nn.Module] = []
    module: Any
    for module in modules:
        distiller = getattr(module, 'distiller', None)
        if distiller is not None:
            networks += [module.architecture, module.teacher]
            connectors += distiller.connectors.values()
        elif hasattr(module, 'forward_train'):
            connectors.append(module)
        else:
            networks.append(module)
    return StepParts(networks, connectors)


def _sum_up(operations: Sequence[Operation]) -> dict[str, int]:
    return dict(
        operations=sum(not o.waits for o in operations),
        read=sum(o.read for o in operations),
        written=sum(o.written for o in operations),
        waits=sum(o.waits for o in operations),
    )
