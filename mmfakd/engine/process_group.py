# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The end of what processes of a training tell one another."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from mmfakd.version import parse_version


def end_process_group() -> None:
    """Destroy the process group, so that no thread is at work when Python ends.

    gloo's threads would abort a process that has ended well. Those of torch 2.1 may
    need the interpreter to let go of what they did last; the end of the group holds
    it while it waits for them, for ever. So they get a moment before.
    """
    if parse_version(torch.__version__) < (2, 2):
        time.sleep(0.5)
    dist.destroy_process_group()
