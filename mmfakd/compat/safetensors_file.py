# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints in the format safetensors, which holds tensors and text alone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from .json_text import read_json


def is_safetensors(path: Path) -> bool:
    """Tell by its beginning whether a file is one of safetensors.

    Args:
        path (Path): The file.

    Returns:
        bool: Whether a header of the length that stands before it begins.
    """
    with path.open('rb') as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], 'little')
    return start[8:] == b'{' and length < 2**32


def read_safetensors(path: Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint, whoever wrote it.

    Args:
        path (Path): The file.
        map_location (Any): Device of the tensors; what is no name or
            :class:`torch.device` stands for the CPU, as the file names no devices.

    Returns:
        dict[str, Any]: ``state_dict`` and ``meta``, the latter from the JSON texts of
        the header.

    Raises:
        ModuleNotFoundError: If the package safetensors is not installed.
        ValueError: If the file is truncated or damaged.
    """
    import torch

    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} is a file of safetensors, a package that is not installed: run '
            '`pip install safetensors`, or give a .pth file.',
            name='safetensors',
        ) from error
    known = isinstance(map_location, (str, torch.device))
    device = torch.device(map_location if known else 'cpu')
    try:
        with safe_open(str(path), framework='pt') as file:
            texts = file.metadata() or {}
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return dict(
        meta={name: _decode(text) for name, text in texts.items()},
        state_dict={name: tensor.to(device) for name, tensor in state_dict.items()},
    )


def _decode(text: str) -> Any:
    """The value of a JSON text; other programs write plain text."""
    with suppress(ValueError):
        return _with_tuples(read_json(text))
    return text


def _with_tuples(value: Any) -> Any:
    """Make tuples of the innermost lists: names of classes, colours of a palette.

    JSON has no tuples, and MMEngine's visualizers take no lists for colours.
    """
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if any(isinstance(item, (dict, list)) for item in value):
        return [_with_tuples(item) for item in value]
    return tuple(value)
