# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights for others to load: files of torch.save, or of safetensors."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmfakd.messages import near_names

from .atomic import whole_file
from .state_dict import some

FORMATS = ('pth', 'safetensors')
# The first four are names that people give to files of torch.save.
ENDINGS = {
    **dict.fromkeys(('.pth', '.pt', '.ckpt', '.tar'), 'pth'),
    '.safetensors': 'safetensors',
}


def format_of(
    out: str, cure: str, endings: Mapping[str, str] = ENDINGS, bare: str | None = None
) -> str:
    """Tell the format that the ending of a file's name says.

    Args:
        out (str): The file.
        cure (str): What a message says of other endings.
        endings (Mapping[str, str]): Ending -> format.
        bare (str, optional): The format of a name without an ending. Defaults to None,
            for none.

    Returns:
        str: The format.

    Raises:
        ValueError: If the ending is none of these.
    """
    ending = Path(out).suffix.lower()
    if not ending and bare is not None:
        return bare
    if ending not in endings:
        near = near_names(ending, endings, count=1) if ending else []
        meant = f' Did you mean {near[0]}?' if near else ''
        raise ValueError(
            f'{out}: its ending says no format; expected one of {", ".join(endings)}.'
            f'{meant} {cure}'
        )
    return endings[ending]


def write_weights(
    checkpoint: dict[str, Any],
    path: str | os.PathLike[str],
    file_format: str | None = None,
) -> None:
    """Write weights and their meta; the file is there as a whole or not at all.

    Folders that are missing are made.

    Args:
        checkpoint (dict[str, Any]): ``state_dict`` and ``meta``.
        path (str | os.PathLike): The file.
        file_format (str, optional): ``'pth'`` or ``'safetensors'``, whose header holds
            ``meta`` as JSON texts. Defaults to None: by the ending of ``path``.

    Raises:
        ModuleNotFoundError: If the package safetensors is wanted and not installed.
        OSError: If the file cannot be written.
        ValueError: If ``meta`` holds what JSON cannot, or ``state_dict`` what
            safetensors cannot.
    """
    to_bytes = _as_safetensors if writes_safetensors(path, file_format) else _as_pth
    # In memory first, as MMEngine does with checkpoints: torch and safetensors have
    # words of their own for a full disk.
    content = to_bytes(checkpoint)
    with whole_file(path, len(content)) as part, open(part, 'wb') as file:
        file.write(content)


def writes_safetensors(path: str | os.PathLike[str], file_format: str | None) -> bool:
    """Tell which of the two formats a file gets.

    Args:
        path (str | os.PathLike): The file.
        file_format (str, optional): The format; by the ending of the file without.

    Returns:
        bool: Whether it is that of safetensors.
    """
    return (file_format or Path(path).suffix.lstrip('.')) == 'safetensors'


def _as_pth(checkpoint: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getbuffer()


def _as_safetensors(checkpoint: dict[str, Any]) -> bytes:
    try:
        from safetensors.torch import save
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Writing .safetensors needs the package safetensors, which is not '
            'installed: run `pip install safetensors`, or write a .pth file.',
            name='safetensors',
        ) from error
    texts = {'format': 'pt'}
    for key, value in checkpoint.get('meta', {}).items():
        try:
            texts[key] = json.dumps(value)
        except TypeError as error:
            raise ValueError(
                f'meta[{key!r}] cannot stand in a file of safetensors ({error}): '
                'write a .pth file.'
            ) from error
    others = [k for k, v in checkpoint['state_dict'].items() if not torch.is_tensor(v)]
    if others:
        raise ValueError(
            f'{some(others)}: no tensor, but what a module keeps beside tensors, and a '
            'file of safetensors holds tensors alone: write a .pth file.'
        )
    # Views, and tensors that share memory, are refused.
    copies = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in checkpoint['state_dict'].items()
    }
    return save(copies, metadata=texts)
