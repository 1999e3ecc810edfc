# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the mdistiller zoo into one of an mmpretrain classifier."""

from __future__ import annotations

from pickle import UnpicklingError

import torch
from mmengine.config import Config
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES, IMAGENET_CATEGORIES

from mmfakd.model_zoo.outputs import check_outputs

from .fetch import fetch_checkpoint
from .image_files import TO_CIFAR
from .mdistiller import convert_mdistiller_state_dict, find_mdistiller_archs
from .mdistiller_zoo import mdistiller_model_cfg
from .state_dict import COUNTER, find_state_dict
from .write import format_of, write_weights

_CIFAR_PIPELINE = [*TO_CIFAR, dict(type='PackInputs')]
_IMAGENET_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
_OTHER_ENDING = (
    'What is converted are weights; `mmfakd export` writes .onnx and .torchscript '
    'files of them.'
)
_ERRORS = (ImportError, OSError, RuntimeError, TypeError, ValueError, UnpicklingError)


def convert_file(
    source: str,
    out: str,
    arch: str | None = None,
    num_classes: int | None = None,
    force: bool = False,
) -> str:
    """Convert a checkpoint file.

    Args:
        source (str): Path or URL of the checkpoint.
        out (str): File to write: a checkpoint of mmpretrain, from which inferencers
            build the model alone. It ends as files of weights do, or in nothing.
        arch (str, optional): Name of the network. Found out by default.
        num_classes (int, optional): Number of classes that it must have.
        force (bool): Whether to overwrite the file.

    Returns:
        str: What was written.

    Raises:
        FileExistsError: If the file exists, or is the checkpoint.
        ValueError: If the weights are not those of the network, or cannot be read; if
            the ending of ``out`` says a format that holds no weights alone, or none.
    """
    kind = format_of(out, _OTHER_ENDING, bare='pth')
    check_outputs(force, [out], [source])
    try:
        weights = find_state_dict(fetch_checkpoint(source))
        found = arch or _find_arch(weights)
        state_dict = convert_mdistiller_state_dict(weights, found)
        classes = len(state_dict['head.fc.bias'])
        if num_classes not in (None, classes):
            raise ValueError(
                f'it has {classes} classes, not --num-classes {num_classes}.'
            )
    except _ERRORS as error:
        raise ValueError(f'{source}: {error}') from error
    write_weights(dict(meta=_meta(found, classes), state_dict=state_dict), out, kind)
    buffers = ('running_mean', 'running_var', COUNTER)
    count = sum(v.numel() for k, v in state_dict.items() if not k.endswith(buffers))
    return (
        f'{out}: {found}{"" if arch else " (found by its tensors)"}, '
        f'{count:,} parameters, {classes} classes.'
    )


def _find_arch(weights: dict[str, torch.Tensor]) -> str:
    found = find_mdistiller_archs(weights)
    if len(found) != 1:
        raise ValueError(
            f'its weights fit {" and ".join(found) or "no network"} of the mdistiller '
            'zoo. Give --arch NAME to see what differs from that network.'
        )
    return found[0]


def _meta(arch: str, classes: int) -> dict:
    """What inferencers need beside the weights."""
    of_cifar = mdistiller_model_cfg(arch)['head']['num_classes'] == 100
    names = CIFAR100_CATEGORIES if of_cifar else IMAGENET_CATEGORIES
    pipeline = _CIFAR_PIPELINE if of_cifar else _IMAGENET_PIPELINE
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=mdistiller_model_cfg(arch, classes),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    dataset_meta = dict(classes=tuple(names)) if len(names) == classes else {}
    return dict(dataset_meta=dataset_meta, cfg=cfg.pretty_text)
