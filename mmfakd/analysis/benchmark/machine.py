# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What was measured on."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from mmfakd.ops.tf32 import tf32

from .measure import Options


def describe_machine(options: Options) -> dict:
    """Describe the machine, and measure what it can do at best.

    Args:
        options (Options): Device and threads.

    Returns:
        dict: ``processor``, ``python``, ``torch``, ``cuda`` (None on CPU), ``tf32``
        (what a GPU may round to TensorFloat-32: ``'convolution'``, ``'matmul'``),
        and in float32 ``flop_per_second`` of a large matrix product and
        ``bytes_per_second`` read and written by a large copy.
    """
    on_gpu = options.device == 'cuda'
    side = 4096 if on_gpu else 1024
    matrix = torch.randn(side, side, device=options.device)
    source = torch.randn(2**26 if on_gpu else 2**24, device=options.device)
    target = torch.empty_like(source)
    product = _seconds('matrix @ matrix', options, matrix=matrix)
    copy = _seconds('target.copy_(source)', options, source=source, target=target)
    return dict(
        processor=torch.cuda.get_device_name() if on_gpu else _cpu_name(),
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda if on_gpu else None,
        tf32=sorted(k for k, rounded in tf32()._asdict().items() if rounded and on_gpu),
        flop_per_second=2 * side**3 / product,
        bytes_per_second=2 * source.numel() * source.element_size() / copy,
    )


def _seconds(statement: str, options: Options, **tensors: torch.Tensor) -> float:
    timer = Timer(statement, globals=tensors, num_threads=options.threads)
    timer.timeit(2)
    return timer.blocked_autorange(min_run_time=min(options.min_time, 1.0)).median


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    text = info.read_text() if info.is_file() else ''
    found = re.search(r'^model name\s*: (.+)$', text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
