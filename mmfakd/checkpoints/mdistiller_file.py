# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the mdistiller zoo into one of an mmpretrain classifier."""

from __future__ import annotations

import os.path as osp
import pickle

import torch
from mmengine.config import Config
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES, IMAGENET_CATEGORIES

from .fetch import fetch_checkpoint
from .mdistiller import convert_mdistiller_state_dict, find_mdistiller_archs
from .mdistiller_zoo import mdistiller_model_cfg

# Inferencers read files as BGR; the classifiers of CIFAR take RGB.
CIFAR_PIPELINE = [
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='PILToNumpy'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
IMAGENET_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]


def weights_of(checkpoint: dict) -> dict[str, torch.Tensor]:
    """Take the weights out of a checkpoint.

    Args:
        checkpoint (dict): A state dict, or one under ``model`` or ``state_dict``.

    Returns:
        dict[str, Tensor]: The state dict.

    Raises:
        ValueError: If there are no weights.
    """
    inner = next(
        (checkpoint[key] for key in ('model', 'state_dict') if key in checkpoint),
        checkpoint,
    )
    weights = inner if isinstance(inner, dict) else {}
    if not weights or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise ValueError(
            "it holds no weights: expected a state dict, or one under 'model' or "
            f"'state_dict'; got the keys {', '.join(map(str, list(checkpoint)[:6]))}."
        )
    return weights


def find_arch(state_dict: dict[str, torch.Tensor]) -> str:
    """Find the one network of the zoo that weights fit.

    Args:
        state_dict (dict[str, Tensor]): The weights.

    Returns:
        str: Its name.

    Raises:
        ValueError: If none fits.
    """
    found = find_mdistiller_archs(state_dict)
    if len(found) != 1:
        raise ValueError(
            f'its weights fit {" and ".join(found) or "no network"} of the mdistiller '
            'zoo. Give --arch NAME to see what differs from that network.'
        )
    return found[0]


def convert(
    checkpoint: dict, arch: str | None = None, num_classes: int | None = None
) -> tuple[dict, str]:
    """Convert a checkpoint.

    Args:
        checkpoint (dict): Of the zoo.
        arch (str, optional): Name of the network. Found out by default.
        num_classes (int, optional): Number of classes that it must have.

    Returns:
        tuple[dict, str]: A checkpoint of mmpretrain, from which inferencers build
        the model alone, and the name of the network.

    Raises:
        ValueError: If the weights are not those of the network.
    """
    weights = weights_of(checkpoint)
    arch = arch or find_arch(weights)
    state_dict = convert_mdistiller_state_dict(weights, arch)
    classes = len(state_dict['head.fc.bias'])
    if num_classes not in (None, classes):
        raise ValueError(f'it has {classes} classes, not --num-classes {num_classes}.')
    model = mdistiller_model_cfg(arch, classes)
    of_cifar = mdistiller_model_cfg(arch)['head']['num_classes'] == 100
    names = CIFAR100_CATEGORIES if of_cifar else IMAGENET_CATEGORIES
    pipeline = CIFAR_PIPELINE if of_cifar else IMAGENET_PIPELINE
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    dataset_meta = dict(classes=tuple(names)) if len(names) == classes else {}
    meta = dict(dataset_meta=dataset_meta, cfg=cfg.pretty_text)
    return dict(meta=meta, state_dict=state_dict), arch


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
        out (str): File to write.
        arch (str, optional): Name of the network. Found out by default.
        num_classes (int, optional): Number of classes that it must have.
        force (bool): Whether to overwrite the file.

    Returns:
        str: What was written.

    Raises:
        FileExistsError: If the file exists.
        ValueError: If the weights are not those of the network, or cannot be read.
    """
    if osp.exists(out) and not force:
        raise FileExistsError(f'{out} exists; choose another name, or give --force.')
    try:
        checkpoint, found = convert(fetch_checkpoint(source), arch, num_classes)
    except (
        ImportError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(f'{source}: {error}') from error
    torch.save(checkpoint, out)
    model = checkpoint['state_dict']
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    count = sum(v.numel() for k, v in model.items() if not k.endswith(buffers))
    return (
        f'{out}: {found}{"" if arch else " (found by its tensors)"}, '
        f'{count:,} parameters, {len(model["head.fc.bias"])} classes.'
    )
