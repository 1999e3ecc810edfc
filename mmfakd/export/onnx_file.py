# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models as ONNX files, checked in onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
import torch

from .student_model import MMDEPLOY, RawOutputs

INPUT = 'images'
# The newest that torch 2.1 writes; runtimes of 2023 and later read it.
OPSET = 17


def check_packages() -> None:
    """See that what writes and reads ONNX files is installed.

    Raises:
        ModuleNotFoundError: If it is not.
    """
    for name in ('onnx', 'onnxruntime'):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'an .onnx file is written by onnx and checked in onnxruntime, and '
                f'{error.name} is not installed: pip install onnx onnxruntime.',
                name=error.name,
            ) from error


def write_onnx(
    model: RawOutputs,
    example: np.ndarray,
    path: str,
    axes: Mapping[str, Mapping[int, str]],
    opset: int,
    meta: Mapping[str, str],
) -> None:
    """Trace a model into a file.

    Args:
        model (RawOutputs): The model; it has run, so that its outputs have names.
        example (np.ndarray): An input (N, C, H, W).
        path (str): The file.
        axes (Mapping): Name of an input or output -> axis -> name of what varies there.
        opset (int): Version of ONNX's operators.
        meta (Mapping[str, str]): What the file is to say of itself.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the model cannot be traced.
    """
    import onnx

    # The exporter of traces, which torch 2.1 has as well.
    legacy = 'dynamo' in signature(torch.onnx.export).parameters
    options: dict[str, Any] = dict(dynamo=False) if legacy else {}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Of values that become constants; whether they may is seen by comparison.
            warnings.simplefilter('ignore')
            torch.onnx.export(
                model,
                (torch.from_numpy(example),),
                path,
                input_names=[INPUT],
                output_names=model.names,
                dynamic_axes={name: dict(found) for name, found in axes.items()},
                opset_version=opset,
                **options,
            )
        written = onnx.load(path)
        onnx.helper.set_model_props(written, dict(meta))
        onnx.checker.check_model(written)
    except OSError:
        # Of the file, not of the model.
        raise
    except Exception as error:
        # Any operator may raise anything while it is translated, and those of old
        # versions are written without being what the version asks for.
        raise ValueError(
            f'the {type(model.model).__name__} cannot be written as ONNX with opset '
            f'{opset}: {type(error).__name__}: {str(error).strip()[:300]}\nTry another '
            '--opset, or --format torchscript; models with operators of their own are '
            f"mmdeploy's ({MMDEPLOY})."
        ) from error
    onnx.save(written, path)


def run_onnx(path: str) -> Any:
    """Open a file in onnxruntime.

    Args:
        path (str): The file.

    Returns:
        Callable: It turns an input into the list of outputs.

    Raises:
        ValueError: If it has an operator that onnxruntime does not know.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Warnings about initialisers that nothing uses any more.
    options.log_severity_level = 3
    providers = ['CPUExecutionProvider']
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        # It has a class for each of its states.
        raise ValueError(
            f'onnxruntime does not load what was written: {str(error).strip()[:300]}\n'
            'An operator that it does not know is one of mmcv or of the model itself; '
            f'mmdeploy ({MMDEPLOY}) has those of mmcv. Or try --format torchscript.'
        ) from error

    def run(batch: np.ndarray) -> Sequence[np.ndarray]:
        return session.run(None, {INPUT: batch})

    return run
