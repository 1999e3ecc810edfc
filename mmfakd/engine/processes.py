# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Several processes for one command."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch.distributed.run import determine_local_world_size, get_args_parser

# One of these means that torchrun is told where the processes meet.
_MEETING = ('--nnodes', '--master', '--rdzv', '--standalone')
# A command has its own help, and what torchrun is to run is settled.
_NUMBERS = (
    "expected a number above 0, 'gpu' for one process on each GPU, or 'cpu' for one on "
    'each core'
)
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
    launcher += _more_signals(launcher)
    command = [sys.executable, '-m', 'torch.distributed.run', *launcher]
    command += ['-m', 'mmfakd', *own, '--launcher', 'pytorch']
    # Else restarted processes look for each other at the addresses of the last time.
    os.environ.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    sys.stdout.flush()
    # Not a child: signals reach what launches the processes.
    os.execv(sys.executable, command)


def check_processes(launcher: Sequence[str]) -> None:
    """Refuse a number of processes that would end in a traceback.

    Args:
        launcher (Sequence[str]): Torchrun's options.

    Raises:
        ValueError: If it is no number above 0, nor a word for one that is known here,
            or above the number of GPUs of a machine that has some.
    """
    for option, value in zip(launcher, [*launcher[1:], '--']):
        if option == '--nproc-per-node' and value.startswith('--'):
            raise ValueError(f'--nproc: {_NUMBERS}, as in --nproc 2')
    # Torchrun wants to be told what to run.
    count = get_args_parser().parse_args([*launcher, 'mmfakd']).nproc_per_node
    why = 'no process'
    try:
        number = determine_local_world_size(count)
    except ValueError as error:
        number, why = 0, str(error).strip(' .')
    # MMEngine puts each on a GPU of its own.
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < gpus < number:
        raise ValueError(
            f'--nproc {count}: this machine has {gpus} GPU(s) for it; expected one for '
            f'each process. Give `--nproc {gpus}`, or make more of them visible '
            '(CUDA_VISIBLE_DEVICES); with CUDA_VISIBLE_DEVICES= (nothing) all '
            'processes run on the CPU.'
        )
    if number > 0:
        return
    raise ValueError(f'--nproc {count}: {why}; {_NUMBERS}')


def restarted() -> bool:
    """Tell whether something else than a user started this process once more.

    Returns:
        bool: Whether Slurm or torchrun did.
    """
    return any(map(_count, ('SLURM_RESTART_COUNT', 'TORCHELASTIC_RESTART_COUNT')))


def may_be_restarted() -> bool:
    """Tell whether this process may be one that is started once more.

    On several machines of a training that may be restarted it is always true: one that
    joins late does not know what the others did before.

    Returns:
        bool: Whether training is to go on from its last checkpoint, if there is one.
    """
    several = _count('GROUP_WORLD_SIZE') > 1
    return restarted() or (several and _count('TORCHELASTIC_MAX_RESTARTS') > 0)


def _count(name: str) -> int:
    return int(os.environ.get(name) or 0)


def _more_signals(launcher: Sequence[str]) -> list[str]:
    """Let torchrun pass on Slurm's signal, unless it cannot or is told otherwise."""
    option = '--signals-to-handle'
    action = get_args_parser()._option_string_actions.get(option)
    given = any(word.replace('_', '-').startswith(option) for word in launcher)
    if action is None or given:
        return []
    return [f'{option}={action.default},SIGUSR1']


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
    rest = deque(words)
    while rest:
        word = rest.popleft()
        name, equals, value = word.partition('=')
        name = '--nproc-per-node' if name == '--nproc' else name
        # Of the short ones, torchrun's mean something else.
        action = known.get(name) if name.startswith('--') else None
        if action is None or action.dest in _SETTLED:
            own.append(word)
            continue
        launcher.append(f'{name}{equals}{value}')
        # Of `--nproc` it is told in our own words that a number is missing.
        ours = action.dest == 'nproc_per_node' and rest and rest[0].startswith('--')
        if not equals and action.nargs != 0 and rest and not ours:
            launcher.append(rest.popleft())
    return own, launcher
