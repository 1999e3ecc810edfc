# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What compiling a training step gains, and what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .measure import Case, Options, Side, measure
from .random_batch import random_batch
from .step import build_part, read_distillation, training_step

CONFIG = 'fakd_review_r56_r20_1xb64_cifar100'
_BATCH, _PIXELS = 64, 32
# What is compiled: nothing, the networks, MMEngine's whole step.
_KINDS = ('as it is', 'compile_networks', 'compile', 'compile, dynamic=True')


def compile_cases(options: Options, batch_size: int | None = None) -> list[Case]:
    """Compile FAM-KD's step of R56-R20 in all ways that a config offers.

    Args:
        options (Options): Device, threads and rounds.
        batch_size (int, optional): Batch size in place of the config's.

    Returns:
        list[Case]: One, which brings its own way to measure.
    """
    batch = batch_size or _BATCH
    steps = partial(compiled_steps, options, batch, _PIXELS)
    name = f'R56-R20, batch {batch}'
    return [Case(name, steps, dict(batch=batch), measure_compiled)]


def compiled_steps(
    options: Options, batch: int, pixels: int, **compiler: Any
) -> list[Side]:
    """Make sides of the step, not compiled and compiled.

    Args:
        options (Options): Device and precision.
        batch (int): Images of a batch.
        pixels (int): Their side.
        **compiler (Any): Further arguments of ``torch.compile``.

    Returns:
        list[Side]: The sides; a run takes one image fewer where it is told so.
    """
    init_default_scope('mmpretrain')
    cfg = read_distillation(CONFIG)
    cfg.merge_from_dict({'model.report': False})
    scale = pixels / _PIXELS
    connector = cfg.model.distiller.connector
    connector.sizes = [max(1, int(n * scale)) for n in connector.sizes]
    return [_side(kind, cfg, options, batch, pixels, compiler) for kind in _KINDS]


def _side(
    kind: str,
    cfg: Config,
    options: Options,
    batch: int,
    pixels: int,
    compiler: dict[str, Any],
) -> Side:
    cfg = Config(cfg.to_dict())
    if kind == 'compile_networks':
        cfg.model.compile_networks = compiler or True
    model = build_part(cfg)
    if kind.startswith('compile,') or kind == 'compile':
        if 'dynamic' in kind:
            compiler = dict(compiler, dynamic=True)
        model.train_step = torch.compile(model.train_step, **compiler)
    size = pixels, pixels
    make = partial(random_batch, cfg, model.architecture, size=size)
    batches = [make(count=batch - n, device=options.device) for n in range(4)]
    steps = [training_step(kind, model, cfg, data, options) for data in batches]

    def run(fewer: int = 0) -> None:
        steps[fewer].run()

    return replace(steps[0], run=run)


def measure_compiled(case: Case, options: Options) -> dict:
    """Time the first steps, count graphs, and compare steps with the plain one.

    Args:
        case (Case): Sides of :func:`compiled_steps`.
        options (Options): How to measure.

    Returns:
        dict: ``name``, the settings and ``sides``, each with ``name``, ``first``
        (seconds of the first two steps), ``graphs``, ``more`` (graphs that each of
        three other batch sizes adds) and ``time_ratio`` to the plain one.
    """
    plain, *others = case.build()
    plain.run()
    results = []
    for side in others:
        torch._dynamo.reset()
        run: Callable[..., object] = side.run
        start, before = time.perf_counter(), _count_graphs()
        # The optimizer has no buffers in the first one.
        run()
        run()
        first, graphs = time.perf_counter() - start, _count_graphs() - before
        pair = replace(case, build=partial(list, [plain, side]), measure=None)
        ratio = measure(pair, options)['sides'][1]['time_ratio']
        more = []
        for fewer in (1, 2, 3):
            before = _count_graphs()
            run(fewer)
            more.append(_count_graphs() - before)
        figures = dict(first=first, graphs=graphs, more=more, time_ratio=ratio)
        results.append(dict(name=side.name, **figures))
    return dict(name=case.name, **case.settings, sides=results)


def _count_graphs() -> int:
    """Graphs that have been compiled so far."""
    return torch._dynamo.utils.counters['stats']['unique_graphs']
