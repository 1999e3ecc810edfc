# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models as TorchScript files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .student_model import MMDEPLOY, RawOutputs

# Where the archive has what it says of itself.
META = 'meta.json'


def write_torchscript(
    model: RawOutputs, example: np.ndarray, path: str, meta: Mapping[str, str]
) -> None:
    """Trace a model into a file.

    Args:
        model (RawOutputs): The model.
        example (np.ndarray): An input (N, C, H, W).
        path (str): The file.
        meta (Mapping[str, str]): What the file is to say of itself.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the model cannot be traced.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            traced = torch.jit.trace(model, torch.from_numpy(example))
            # torch ends the process where a disk is full.
            files = {META: json.dumps(dict(meta))}
            content = traced.save_to_buffer(_extra_files=files)
    except Exception as error:
        # Any module may raise anything while it is traced.
        raise ValueError(
            f'the {type(model.model).__name__} cannot be traced: '
            f'{type(error).__name__}: {str(error).strip()[:300]}\nModels with '
            f"operators of their own are mmdeploy's ({MMDEPLOY})."
        ) from error
    with open(path, 'wb') as file:
        file.write(content)


def run_torchscript(path: str) -> Any:
    """Open a file that has just been written.

    Args:
        path (str): The file. It is a program: those of strangers are not for it.

    Returns:
        Callable: It turns an input into the list of outputs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = torch.jit.load(path)

    def run(batch: np.ndarray) -> Sequence[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in loaded(torch.from_numpy(batch))]

    return run
