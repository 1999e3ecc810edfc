# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A function in two processes that train together by gloo."""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel

from mmfakd.engine.process_group import end_process_group
from tests.helpers.forked import Forked
from tests.helpers.process_runs import REPOSITORY, environment, free_port

# A package of that name may be installed, too.
_BOOT = f"""
import sys, types
tests = sys.modules['tests'] = types.ModuleType('tests')
tests.__path__ = [{str(REPOSITORY / 'tests')!r}]
from importlib import import_module
from tests.helpers.two_processes import _start
_start(getattr(import_module(sys.argv[1]), sys.argv[2]), *sys.argv[3:])
"""


def run_twice(function, *args):
    """Call `function(rank, *args)` of a test module in two processes.

    Args:
        function: It has a name in its module.
        *args: Texts.
    """
    port = free_port()
    environ = environment(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE=2)
    names = (function.__module__, function.__name__)
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f'rank{rank}') for rank in (0, 1)]
        processes = [
            Forked(
                *('-c', _BOOT, *names, *args),
                cwd=REPOSITORY,
                env={**environ, 'RANK': str(rank)},
                stdout=log,
            )
            for rank, log in enumerate(logs)
        ]
        try:
            statuses = [process.wait(timeout=300) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert statuses == [0, 0], '\n'.join(log.read_text() for log in logs)


def parallel(model):
    """Wrap a model as a runner on CPU does."""
    return MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)


def _start(function, *args):
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    function(dist.get_rank(), *args)
    end_process_group()
