# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import sys

# Of <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1


def end_with_parent(signum: int) -> None:
    """Let the kernel send this process a signal when its parent dies.

    So nothing trains on behind a launcher that was killed. Only Linux can do this.

    Args:
        signum (int): The signal.
    """
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
