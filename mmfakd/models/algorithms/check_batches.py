# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checks of what comes in: labels, scores and channels of the images.

On a GPU a label that is too high is a device assert, which names no image and ends
the process; mmdet takes it for the background. All is looked at where it comes from
the loader, on the CPU, so that nothing waits for a device.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel, ImgDataPreprocessor
from torch import Tensor, nn

from mmfakd.ops.compiling import is_compiling

from .count_classes import count_classes
from .normalisation import choose_channels

# What PyTorch's cross entropy skips.
_IGNORED = -100
_CHANNELS = re.compile(r'to have (\d+) channels, but got (\d+) channels')


def check_batches(model: BaseModel, role: str = 'model') -> None:
    """Let a model check the batches of training before they are preprocessed.

    Args:
        model (BaseModel): A classifier, detector, segmentor or other model; where
            nothing tells how many classes it has, its labels are not checked.
        role (str): What it is, for messages.

    Raises:
        ValueError: If its preprocessor makes scores of another number of classes than
            its head; in each step of training if a label or score is of no class of
            the model, or the preprocessor cannot take images of such channels.
    """
    classes = label_count(model)
    preprocessor = model.data_preprocessor
    scores = getattr(preprocessor, 'num_classes', None)
    makes = any(getattr(preprocessor, k, None) for k in ('batch_augments', 'to_onehot'))
    if makes and scores and classes and scores != classes:
        raise ValueError(
            f'`data_preprocessor` makes scores of num_classes={scores}, but the head '
            f'of the {role} ({type(model).__name__}) has num_classes={classes}: give '
            'both the same.'
        )
    hooks = getattr(preprocessor, '_forward_pre_hooks', {}).values()
    # Nothing is checked twice.
    if isinstance(preprocessor, nn.Module) and not any(
        getattr(hook, 'func', None) is _check for hook in hooks
    ):
        preprocessor.register_forward_pre_hook(
            partial(_check, role, classes, _ignored_index(model)), with_kwargs=True
        )


def label_count(model: nn.Module) -> int | None:
    """Count the labels that a model may be given.

    Args:
        model (nn.Module): The model.

    Returns:
        int | None: Its number of classes; None where nothing tells, or any will do.
    """
    # It takes all labels for the one class "object".
    if 'RPN' in {base.__name__ for base in type(model).__mro__}:
        return None
    return count_classes(model)


def refuse_channels(error: RuntimeError, role: str, inputs: Tensor) -> None:
    """Say which model cannot take a batch, if that is why it failed.

    Args:
        error (RuntimeError): What its first convolution raised, or anything else.
        role (str): ``'student'`` or ``'teacher'``.
        inputs (Tensor): The batch (N, C, H, W).

    Raises:
        ValueError: If a convolution wants another number of channels than C.
    """
    found = _CHANNELS.search(str(error))
    if found is None or int(found[2]) != inputs.size(1):
        return
    colour = {'1': 'grayscale', '3': 'color'}.get(found[1])
    load = f' (color_type={colour!r} of LoadImageFromFile)' if colour else ''
    picked = choose_channels(int(found[2]), int(found[1]))
    pick = (
        f', or choose channels for it, `teacher_preprocessor=dict(channels={picked})`'
        if role == 'teacher' and picked
        else ''
    )
    raise ValueError(
        f'The {role} takes images of {found[1]} channel(s), but got a batch with '
        f'{found[2]} (shape {tuple(inputs.shape)}). Set `in_channels={found[2]}` of '
        f"the {role}'s backbone, or load images of {found[1]} channel(s){load}"
        f'{pick}.'
    ) from error


def image_name(sample: Any) -> str:
    """Name an image in a message.

    Args:
        sample (BaseDataElement, optional): Its data sample.

    Returns:
        str: Its path or number, as far as the sample tells.
    """
    info = getattr(sample, 'metainfo', {})
    path = info.get('img_path')
    number = info.get('sample_idx', info.get('img_id'))
    if path is None and number is None:
        return 'An image of the batch'
    return f'The image {number if path is None else path}'


def _ignored_index(model: nn.Module) -> int:
    """The class of pixels that a segmentor's loss skips."""
    head: Any = getattr(model, 'decode_head', None)
    head = head[0] if isinstance(head, nn.ModuleList) else head
    index = getattr(head, 'ignore_index', _IGNORED)
    return index if isinstance(index, int) else _IGNORED


def _check(
    role: str,
    classes: int | None,
    ignored: int,
    module: nn.Module,
    args: tuple,
    kwargs: dict,
) -> None:
    """Check one batch, as a hook before the preprocessor."""
    # A compiled step is not to be cut into more graphs.
    if is_compiling():
        return
    data, training = ((*args, kwargs.get('training', False))[:2]) if args else ({}, 0)
    if not training or not isinstance(data, Mapping):
        return
    samples: Any = data.get('data_samples')
    samples = samples if isinstance(samples, (list, tuple)) else []
    inputs: Any = data.get('inputs')
    if isinstance(inputs, (Tensor, list, tuple)):
        _check_channels(module, inputs, samples, role)
    if classes is not None:
        _check_labels(samples, classes, role)
        _check_maps(samples, classes, ignored, role)


def _check_labels(samples: Sequence[Any], classes: int, role: str) -> None:
    labels = [label for label in map(_label, samples) if isinstance(label, Tensor)]
    # All at once, as each look at a tensor costs some microseconds.
    if labels and labels[0].device.type == 'cpu':
        both = torch.cat([label.flatten() for label in labels])
        if len(both) and not 0 <= int(both.min()) <= int(both.max()) < classes:
            for sample in samples:
                _check_label(sample, classes, role)
    for sample in samples:
        score = sample.get('gt_score')
        if isinstance(score, Tensor) and score.size(-1) != classes:
            raise ValueError(
                f'{image_name(sample)}: `gt_score` has {score.size(-1)} values, but '
                f'the {role} has num_classes={classes}; expected a score for each '
                'class. Correct the data set or `num_classes` of the head.'
            )


def _check_label(sample: Any, classes: int, role: str) -> None:
    label = _label(sample)
    if not isinstance(label, Tensor):
        return
    wrong = label[((label < 0) & (label != _IGNORED)) | (label >= classes)]
    if len(wrong):
        raise ValueError(
            f'{image_name(sample)}: label {wrong[0].item()}, but the {role} has '
            f'num_classes={classes}; expected 0 to {classes - 1}. Set `num_classes` of '
            'its head to the number of classes of the data set (and of the '
            '`data_preprocessor`, where it says one), or correct the labels or '
            '`metainfo=dict(classes=...)` of the data set.'
        )


def _check_maps(samples: Sequence[Any], classes: int, ignored: int, role: str) -> None:
    """Check the classes of pixels, where images have maps of them."""
    for sample in samples:
        found = getattr(getattr(sample, 'gt_sem_seg', None), 'data', None)
        if not isinstance(found, Tensor) or found.device.type != 'cpu':
            continue
        wrong = ((found < 0) | (found >= classes)) & (found != ignored)
        if wrong.any():
            raise ValueError(
                f'{image_name(sample)}: its map has class {found[wrong][0].item()}, '
                f'but the {role} has num_classes={classes}; expected 0 to '
                f'{classes - 1}, or {ignored} for pixels that do not count. Set '
                '`num_classes` of its heads to the number of classes of the data set, '
                'or `reduce_zero_label=True` of the data set where its maps count '
                'classes from 1.'
            )


def _label(sample: Any) -> Any:
    """The class of an image, or those of its boxes."""
    if not hasattr(sample, 'get'):
        return None
    instances = sample.get('gt_instances')
    return sample.get('gt_label') if instances is None else instances.get('labels')


def _check_channels(
    module: nn.Module, inputs: Any, samples: Sequence[Any], role: str
) -> None:
    mean = getattr(module, 'mean', None)
    expected = mean.numel() if isinstance(mean, Tensor) else 1
    strict = isinstance(module, ImgDataPreprocessor)
    if strict and getattr(module, '_channel_conversion', False):
        expected = 3
    batched = isinstance(inputs, Tensor)
    shapes = [inputs.shape[1:]] if batched else [x.shape for x in inputs]
    for i, shape in enumerate(shapes):
        found = shape[0]
        if expected in (1, found) or len(shape) != 3:
            continue
        image = image_name(samples[i] if i < len(samples) else None)
        told = (
            f"{image} has {found} channel(s), but the {role}'s data_preprocessor "
            f'expects {expected} (mean of {expected} values)'
        )
        if found == 1 and not strict:
            warnings.warn(f'{told}: the one channel is taken {expected} times.')
            return
        raise ValueError(
            f'{told}. Load images of {expected} channels (`color_type` of '
            'LoadImageFromFile), or give `mean` and `std` for those there are, and the '
            'backbones their `in_channels`.'
        )
