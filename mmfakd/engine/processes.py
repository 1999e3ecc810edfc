# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Several processes for one command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import islice
from typing import NoReturn

from torch.distributed.run import get_args_parser

# One of these means that torchrun is told where the processes meet.
_MEETING = ('--nnodes', '--master', '--rdzv', '--standalone')
# A command has its own help, and what torchrun is to run is settled.
_SETTLED = ('help', 'module', 'no_python', 'run_path')


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
        words (Sequence[str]): A command line with both, in any order.

    Returns:
        tuple[list[str], list[str]]: What is left for the command, and torchrun's.
    """
    known = get_args_parser()._option_string_actions
    own: list[str] = []
    launcher: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition('=')
        name = '--nproc-per-node' if name == '--nproc' else name
        # Of the short ones, torchrun's mean something else.
        action = known.get(name) if name.startswith('--') else None
        if action is None or action.dest in _SETTLED:
            own.append(word)
            continue
        launcher.append(f'{name}{equals}{value}')
        if not equals and action.nargs != 0:
            launcher += islice(rest, 1)
    return own, launcher
