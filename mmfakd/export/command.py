# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The command ``mmfakd export``."""

from __future__ import annotations

import json
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import Tensor

from mmfakd.checkpoints.atomic import whole_file
from mmfakd.checkpoints.first_meta import first_meta
from mmfakd.checkpoints.student import export_file
from mmfakd.checkpoints.write import ENDINGS, FORMATS, format_of
from mmfakd.model_zoo.config_sources import config_sources
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.outputs import check_config_name, check_outputs
from mmfakd.version import __version__

from . import onnx_file, torchscript_file
from .compare_outputs import TOLERANCE, largest_difference
from .preprocessing import check_preprocessing, describe_preprocessing, prepare
from .student_model import (
    RawOutputs,
    Student,
    binary_threshold,
    cannot_be_traced,
    input_channels,
    load_student,
)

_ENDINGS = {**ENDINGS, '.onnx': 'onnx', '.torchscript': 'torchscript'}
_OTHER_ENDING = 'With another ending, or none, give --format.'
# Pixels by which another size is larger than the first; a multiple of all strides.
_LARGER = 64


def export_checkpoint(
    checkpoint: str,
    out: str,
    config_out: str | None = None,
    file_format: str | None = None,
    force: bool = False,
    config: str | None = None,
    image: str | None = None,
    input_size: tuple[int, int] | None = None,
    dynamic: str = 'auto',
    opset: int | None = None,
) -> str:
    """Export the student of a checkpoint.

    Args:
        checkpoint (str): Distillation checkpoint, or an exported student: path, URL or
            model-zoo name.
        out (str): File to write.
        config_out (str, optional): File for the stock student's config.
        file_format (str, optional): ``'pth'``, ``'safetensors'``, ``'onnx'`` or
            ``'torchscript'``. Defaults to None: by the ending of ``out``.
        force (bool): Whether to overwrite files.
        config (str, optional): Config of the student, where the checkpoint has none;
            this and what follows is for ONNX and TorchScript.
        image (str, optional): The picture that outputs are compared on. Defaults to
            None, a photograph that comes with scikit-learn.
        input_size (tuple[int, int], optional): Height and width of the input. Defaults
            to None, as in the config.
        dynamic (str): Which sizes may vary: ``'none'``, ``'batch'``, ``'size'`` (the
            batch, and height and width) or ``'auto'``, of classifiers the batch, of
            others the size.
        opset (int, optional): Version of ONNX's operators. Defaults to None: 17.

    Returns:
        str: What was written.

    Raises:
        FileExistsError: If a file exists, or is one that is read.
        FileNotFoundError: If the picture is not there.
        ModuleNotFoundError: If a package is not installed.
        ValueError: If the model cannot be traced, or its file computes something else;
            if the ending says no format, or an option has no effect on the file's.
    """
    kind = file_format or format_of(out, _OTHER_ENDING, _ENDINGS)
    _refuse_unused(
        kind, out, config=config, image=image, input_size=input_size, dynamic=dynamic
    )
    if opset is not None and kind != 'onnx':
        raise ValueError(
            f'--opset has no effect on {out}, a file of the format {kind}: only ONNX '
            'has versions of operators. Leave it out, or write an .onnx file.'
        )
    if kind in FORMATS:
        return export_file(
            checkpoint, out, config_out, kind, force, describe_preprocessing
        )
    sources = config_sources(config_file(config)) if config else []
    check_config_name(config_out)
    check_outputs(force, [out, config_out], [checkpoint, image, *sources])
    if kind == 'onnx':
        onnx_file.check_packages()
    # Not a line for every tensor.
    MMLogger.get_instance('export', log_level='WARNING')
    try:
        student = load_student(checkpoint, config)
        version = opset or onnx_file.OPSET
        written = _write(student, kind, out, image, input_size, dynamic, version)
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error
    if config_out:
        Path(config_out).parent.mkdir(parents=True, exist_ok=True)
        student.cfg.dump(config_out)
        written += f'\n{config_out}: its config.'
    return written


def _refuse_unused(kind: str, out: str, **options: Any) -> None:
    """Refuse options that would have no effect on a file of weights alone."""
    given = [
        f'--{name.replace("_", "-")}'
        for name, value in options.items()
        if value not in (None, 'auto')
    ]
    if given and kind in FORMATS:
        raise ValueError(
            f'{", ".join(given)}: no effect on {out}, a file of the format {kind}, '
            'which holds weights and no traced network. Leave out what has no effect, '
            'or write an .onnx or .torchscript file (by its ending, or by --format).'
        )


def _write(
    student: Student,
    kind: str,
    out: str,
    image: str | None,
    input_size: tuple[int, int] | None,
    dynamic: str,
    opset: int,
) -> str:
    preprocessing = describe_preprocessing(
        student.cfg, input_size, input_channels(student.model)
    )
    picture = _picture(image)
    check_preprocessing(student, preprocessing, picture)
    batch = prepare(picture, preprocessing)
    model = RawOutputs(student).eval()
    outputs, others = _first_outputs(model, batch)
    varies = dynamic
    if dynamic == 'auto':
        varies = 'batch' if student.task == 'classification' else 'size'
    axes = _axes(model.names, outputs, varies)
    batches = _batches(batch, varies)
    meta = _meta(student, preprocessing, model.names, axes)
    # Traced with two images, a batch of one is no constant.
    example = batch if varies == 'none' else batches[1]
    with whole_file(out) as part:
        if kind == 'onnx':
            meta['opset'] = str(opset)
            onnx_file.write_onnx(model, example, part, axes, opset, meta)
            run = onnx_file.run_onnx(part)
        else:
            torchscript_file.write_torchscript(model, example, part, meta)
            run = torchscript_file.run_torchscript(part)
        apart = largest_difference(model, run, batches)
    # Not the long names of what varies with the image.
    short = {0: 'batch', 2: 'h', 3: 'w'}
    shapes = ', '.join(
        f'{name} {_shape(x.shape, {i: short[i] for i in axes.get(name, {})})}'
        for name, x in zip(model.names, outputs)
    )
    limit = binary_threshold(student.model)
    binary = (
        '' if limit is None else f'\nthreshold: sigmoid, above {limit:g} is class 1'
    )
    with_opset = f' (opset {opset})' if kind == 'onnx' else ''
    return (
        f'{out}: {kind}{with_opset} of a {type(student.model).__name__}, '
        f'{sum(p.numel() for p in student.model.parameters()):,} parameters.\n'
        f'input: {onnx_file.INPUT} {_shape(batch.shape, axes.get(onnx_file.INPUT, {}))}'
        f'\noutputs: {shapes}{binary}\npreprocessing: {_told(preprocessing)}\n'
        f'checked: {len(batches)} batches differ from PyTorch by {apart:.1e} of the '
        f'largest value at most ({TOLERANCE:g} is allowed).{_doubt(outputs, others)}'
    )


def _first_outputs(
    model: RawOutputs, batch: np.ndarray
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What a model says of a batch, and of its negative."""
    try:
        with torch.no_grad():
            return model(torch.from_numpy(batch)), model(torch.from_numpy(-batch))
    except Exception as error:
        # Whatever it wants more than images, or larger ones.
        shape = ' x '.join(map(str, batch.shape))
        raise ValueError(
            f'{cannot_be_traced(model.model)} On a batch of {shape} it fails with '
            f'{type(error).__name__}: {error}. If that is a matter of the size, give '
            'another --input-size.'
        ) from error


def _doubt(outputs: Sequence[Tensor], others: Sequence[Tensor]) -> str:
    """Say if nothing was to be seen, as for a student at random whose maps are dead."""
    if any(
        (a - b).abs().max() > TOLERANCE * a.abs().max() for a, b in zip(outputs, others)
    ):
        return ''
    return (
        '\nNOTE: the outputs of an image and of its negative are the same, so that '
        'little is shown by this. Is it trained? Try another --image.'
    )


def _picture(path: str | None) -> np.ndarray:
    """A picture (H, W, 3) in BGR."""
    if path is None:
        from sklearn.datasets import load_sample_image

        return np.ascontiguousarray(load_sample_image('china.jpg')[..., ::-1])
    picture = cv2.imread(path) if osp.isfile(path) else None
    if picture is None:
        raise FileNotFoundError(f'--image {path}: no picture that OpenCV reads.')
    return picture


def _axes(names: list[str], outputs: Any, varies: str) -> dict[str, dict[int, str]]:
    """What varies, by input and output."""
    if varies == 'none':
        return {}
    axes: dict[str, dict[int, str]] = {onnx_file.INPUT: {0: 'batch'}}
    axes.update({name: {0: 'batch'} for name in names})
    if varies == 'size':
        axes[onnx_file.INPUT].update({2: 'height', 3: 'width'})
        for name, output in zip(names, outputs):
            if output.dim() == 4:
                axes[name].update({2: f'{name}_height', 3: f'{name}_width'})
    return axes


def _batches(batch: np.ndarray, varies: str) -> list[np.ndarray]:
    """Inputs to compare on: all that may vary does."""
    batches = [batch]
    if varies != 'none':
        batches.append(np.concatenate([batch, -batch]))
    if varies == 'size':
        margin = ((0, 0), (0, 0), (0, _LARGER), (_LARGER, 0))
        batches.append(np.pad(batch, margin, mode='reflect'))
    return [np.ascontiguousarray(one) for one in batches]


def _meta(
    student: Student,
    preprocessing: Mapping[str, Any],
    names: list[str],
    axes: Mapping[str, Mapping[int, str]],
) -> dict[str, str]:
    """What the file says of itself, JSON texts as in a file of safetensors."""
    limit = binary_threshold(student.model)
    found = dict(
        {} if limit is None else dict(threshold=limit),
        mmfakd=__version__,
        task=student.task,
        preprocessing=dict(preprocessing),
        outputs=names,
        dynamic_axes={
            name: {str(i): x for i, x in a.items()} for name, a in axes.items()
        },
        dataset_meta=first_meta(student.meta.get('dataset_meta')),
        cfg=Config(student.cfg.to_dict()).pretty_text,
    )
    return {key: json.dumps(value) for key, value in found.items()}


def _shape(shape: Any, varies: Mapping[int, str]) -> str:
    return ' x '.join(varies.get(i, str(n)) for i, n in enumerate(shape))


def _told(preprocessing: Mapping[str, Any]) -> str:
    height, width = preprocessing['input_size']
    mean, std = ([f'{x:g}' for x in preprocessing[key]] for key in ('mean', 'std'))
    return (
        f'{preprocessing["channel_order"]}, {height} x {width}, values of '
        f'{preprocessing["value_range"]} minus [{", ".join(mean)}] over '
        f'[{", ".join(std)}]'
    )
