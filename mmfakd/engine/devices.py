# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where a command computes."""

from __future__ import annotations

import torch
from mmengine.device import get_device

from mmfakd.messages import first_line


def find_device(name: str | None = None) -> torch.device:
    """Take the device that is asked for, or the fastest usual one.

    Args:
        name (str, optional): As on the command line: ``'cpu'``, ``'cuda:0'``, or any
            other that torch can compute on here. Defaults to None: a GPU where there
            is one.

    Returns:
        torch.device: The device.

    Raises:
        ValueError: If it is not there.
    """
    if name is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        # There and back: the meta device has no numbers.
        torch.zeros(1, device=device).tolist()
    # A backend that is not there may raise anything.
    except Exception as error:
        first = first_line(error).strip(' .')
        raise ValueError(
            f'--device {name}: torch {torch.__version__} (built for CUDA '
            f'{torch.version.cuda}) cannot compute there ({type(error).__name__}: '
            f'{first}). It finds {_found()}. Give one of these, or leave --device out'
            '; if there should be a GPU, check `nvidia-smi`.'
        ) from error
    return device


def _found() -> str:
    """List the devices that are there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # MMEngine knows those of other makers.
    names = ['cpu', *(f'cuda:{i}' for i in range(count)), get_device()]
    names = [name for name in dict.fromkeys(names) if name != 'cuda']
    return ', '.join(names) + ('' if count else ' and no GPU of CUDA')
