# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Several processes for one training."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from torch.distributed.run import get_args_parser

# One of these means that torchrun is told where the processes meet.
_MEETING = ('--nnodes', '--master', '--rdzv', '--standalone')


def start_processes(words: Sequence[str]) -> NoReturn:
    """Become torchrun, which runs the command in several processes.

    Args:
        words (Sequence[str]): The command line behind ``mmfakd``, with ``--nproc`` and
            any options of torchrun.
    """
    own, launcher = split_options(words)
    if not any(option.startswith(_MEETING) for option in launcher):
        launcher.insert(0, '--standalone')
    command = [sys.executable, '-m', 'torch.distributed.run', *launcher]
    command += ['-m', 'mmfakd', *own, '--launcher', 'pytorch']
    sys.stdout.flush()
    # Not a child: signals reach what launches the processes.
    os.execv(sys.executable, command)


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell the options of torchrun from those of a command.

    Args:
        words (Sequence[str]): A command line with both.

    Returns:
        tuple[list[str], list[str]]: What is left for the command, and torchrun's.
    """
    known = get_args_parser()._option_string_actions
    known['--nproc'] = known['--nproc-per-node']
    own, launcher, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition('=')
        # `-m` and the like are none of a command's.
        if not name.startswith('--') or name == '--help' or name not in known:
            own.append(word)
            continue
        launcher.append(word.replace('--nproc=', '--nproc-per-node='))
        if word == '--nproc':
            launcher[-1] = '--nproc-per-node'
        if not equals and known[name].nargs != 0 and rest:
            launcher.append(rest.pop(0))
    return own, launcher
