# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights of the mdistiller zoo in mmpretrain classifiers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache

import torch
from mmengine.registry import MODELS
from torch import Tensor

from .mdistiller_zoo import MDISTILLER_ARCHS, mdistiller_model_cfg

_SHOWN = 4
_COUNTER = 'num_batches_tracked'
_MEAN, _FOLDED = '.bn.running_mean', '.conv.bias'
_CLASSIFIER = re.compile(r'(fc|linear|classifier(\.0)?)\.(?=weight$|bias$)')


def _resnet(key: str) -> str:
    return key.replace('.shortcut.', '.downsample.')


def _wide_resnet(key: str) -> str:
    key = re.sub(r'^block(\d)\.layer\.', r'layer\1.', key)
    return key.replace('.convShortcut.', '.downsample.')


def _in_sequence(index: str) -> tuple[int, str]:
    """Which of a sequence's conv, norm, activation, conv, ... and what it is."""
    number, part = divmod(int(index), 3)
    return number, ('conv', 'bn', 'activate')[part]


def _vgg(key: str) -> str:
    match = re.match(r'block(\d)\.(\d+)\.(.+)', key)
    if not match:
        return key
    number, part = _in_sequence(match[2])
    return f'layer{int(match[1]) + 1}.conv{number + 1}.{part}.{match[3]}'


def _numbered(key: str) -> str:
    """The convolution and the norm of one number make one module."""
    key = re.sub(r'\bconv(\d)\.weight$', r'conv\1.conv.weight', key)
    return re.sub(r'\bbn(\d)\.', r'conv\1.bn.', key)


def _shufflenet_v2(key: str) -> str:
    key = _numbered(key)
    match = re.match(r'(layer\d\.(\d+))\.conv(\d)\.(.+)', key)
    if not match:
        return key
    number = int(match[3])
    # The first block of a stage has two branches of two and three convolutions.
    branch = 2
    if match[2] == '0':
        branch, number = (1, number) if number < 3 else (2, number - 2)
    return f'{match[1]}.branch{branch}.{number - 1}.{match[4]}'


# Place of the zoo's groups of blocks: stage, and how many modules stand before.
_MOBILENET_V2_GROUPS = dict(
    zip('0123456', [(1, 0), (1, 2), (2, 0), (3, 0), (3, 4), (4, 0), (4, 3)])
)
# First block of each stage; the stem is 0.
_MOBILENET_V1_STARTS = {4: 12, 3: 6, 2: 4, 1: 1}


def _mobilenet_v2(key: str) -> str:
    match = re.match(r'(conv[12])\.(\d)\.(.+)', key)
    if match:
        return f'{match[1]}.{_in_sequence(match[2])[1]}.{match[3]}'
    match = re.match(r'blocks\.([0-6])\.(\d+)\.conv\.(\d)\.(.+)', key)
    if not match:
        return key
    stage, before = _MOBILENET_V2_GROUPS[match[1]]
    position = before + int(match[2])
    number, part = _in_sequence(match[3])
    name = ('expand_conv.', 'depthwise_conv.', 'linear_conv.')[number]
    if match[1] == '0':
        # Its first convolution stands before the block.
        position, name = (position, '') if number == 0 else (position + 1, name)
    return f'layer{stage}.{position}.{name}{part}.{match[4]}'


def _mobilenet_v1(key: str) -> str:
    match = re.match(r'model\.(\d+)\.([0-5])\.(.+)', key)
    if not match:
        return key
    block = int(match[1])
    number, part = _in_sequence(match[2])
    if block == 0:
        return f'conv{number + 1}.{part}.{match[3]}'
    stage = next(s for s, start in _MOBILENET_V1_STARTS.items() if block >= start)
    name = ('depthwise_conv', 'pointwise_conv')[number]
    position = block - _MOBILENET_V1_STARTS[stage]
    return f'layer{stage}.{position}.{name}.{part}.{match[3]}'


# What renames the tensors of a backbone, by its type.
_RENAMES: dict[str, Callable[[str], str]] = {
    'mmfakd.CIFARMobileNetV2': _mobilenet_v2,
    'mmfakd.CIFARResNet': str,
    'mmfakd.CIFARShuffleNetV1': _numbered,
    'mmfakd.CIFARShuffleNetV2': _shufflenet_v2,
    'mmfakd.CIFARVGG': _vgg,
    'mmfakd.MobileNetV1': _mobilenet_v1,
    'mmrazor.WideResNet': _wide_resnet,
    'ResNet': str,
    'ResNet_CIFAR': _resnet,
}


def convert_mdistiller_state_dict(
    state_dict: Mapping[str, Tensor], arch: str
) -> dict[str, Tensor]:
    """Convert the weights of a network of the mdistiller zoo.

    The zoo's checkpoints are also those of CRD and most of the literature on CIFAR.
    ``resnet18``, ``resnet34`` and ``resnet50`` are torchvision's, with which the
    literature begins on ImageNet.

    Args:
        state_dict (Mapping[str, Tensor]): The weights. A prefix ``module.``, which
            data parallelism leaves, is dropped; counters of batch norm that files of
            old versions lack are filled in.
        arch (str): Name of the network in the zoo; see
            :func:`~mmfakd.checkpoints.mdistiller_zoo`.

    Returns:
        dict[str, Tensor]: State dict of the ``ImageClassifier`` that
        :func:`~mmfakd.checkpoints.mdistiller_zoo` describes, complete, with the
        checkpoint's number of classes. Tensors are copies.

    Raises:
        ValueError: For an unknown name, and for a state dict with missing, unknown or
            wrongly shaped tensors. The message names them, and the network that the
            weights are of, if it is another one of the zoo.
    """
    mdistiller_model_cfg(arch)  # raises for unknown names
    if not state_dict:
        raise ValueError(
            f'convert_mdistiller_state_dict got an empty state dict, expected weights '
            f'of {arch!r}: check the file, or the key that holds its state dict.'
        )
    others = [key for key, v in state_dict.items() if not isinstance(v, Tensor)]
    if others:
        raise ValueError(
            f'convert_mdistiller_state_dict got {_some(others)} that are no tensors, '
            "expected a state dict: pass what the checkpoint holds under 'model' or "
            "'state_dict'."
        )
    state_dict = _without_module(state_dict)
    problems = _problems(state_dict, arch)
    if problems:
        found = [name for name in find_mdistiller_archs(state_dict) if name != arch]
        raise ValueError(
            f'These are no weights of {arch!r}: {"; ".join(problems)}. '
            + (
                f'They are those of {_quoted(found)}: give that name instead.'
                if found
                else 'Nor are they those of another network of the mdistiller zoo.'
            )
        )
    names = _names(state_dict, arch)
    converted = {names[key]: value.clone() for key, value in state_dict.items()}
    for key in _shapes(arch, _num_classes(state_dict)):
        if key.endswith(_COUNTER):
            converted.setdefault(key, torch.tensor(0))
        elif key.endswith(_FOLDED):
            # A bias before batch norm only shifts the mean.
            converted[key.replace(_FOLDED, _MEAN)] -= converted.pop(key)
    return converted


def find_mdistiller_archs(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Find the networks of the mdistiller zoo that weights fit.

    Args:
        state_dict (Mapping[str, Tensor]): Weights in the zoo's own names.

    Returns:
        list[str]: Their names: one, or none.
    """
    state_dict = _without_module(state_dict)
    return [arch for arch in MDISTILLER_ARCHS if not _problems(state_dict, arch)]


def _without_module(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not all(key.startswith('module.') for key in state_dict):
        return dict(state_dict)
    return {key.removeprefix('module.'): value for key, value in state_dict.items()}


def _names(keys: Iterable[str], arch: str) -> dict[str, str]:
    """Names of the zoo and those of our classifier."""
    rename = _RENAMES[mdistiller_model_cfg(arch)['backbone']['type']]
    return {
        key: _CLASSIFIER.sub('head.fc.', key)
        if _CLASSIFIER.match(key)
        else f'backbone.{rename(key)}'
        for key in keys
    }


def _num_classes(state_dict: Mapping[str, Tensor]) -> int | None:
    for key, value in state_dict.items():
        if _CLASSIFIER.match(key):
            return len(value) if value.dim() and len(value) else None
    return None


# Building a network takes its time; a search builds them all.
@cache
def _shapes(arch: str, num_classes: int | None) -> dict[str, torch.Size]:
    """Name and shape of every tensor that a checkpoint of a network holds."""
    cfg = mdistiller_model_cfg(arch, num_classes)
    with torch.random.fork_rng(devices=[]):
        model = MODELS.build(cfg)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    if cfg['backbone']['type'] == 'mmfakd.CIFARVGG':
        # The zoo's convolutions have a bias, ours none.
        for key in [key for key in shapes if key.endswith(_MEAN)]:
            shapes[key.replace(_MEAN, _FOLDED)] = shapes[key]
    return shapes


def _problems(state_dict: Mapping[str, Tensor], arch: str) -> list[str]:
    """What stands between weights and a network."""
    expected = _shapes(arch, _num_classes(state_dict))
    found: dict[str, str] = {}
    unknown = []
    for theirs, ours in _names(state_dict, arch).items():
        if ours in expected and ours not in found:
            found[ours] = theirs
        else:
            unknown.append(theirs)
    missing = [k for k in expected if k not in found and not k.endswith(_COUNTER)]
    shapes = [
        f'{theirs} {tuple(state_dict[theirs].shape)} instead of {tuple(expected[ours])}'
        for ours, theirs in found.items()
        if state_dict[theirs].shape != expected[ours]
    ]
    return [
        f'{len(keys)} {what}: {_some(keys)}'
        for what, keys in (
            ('missing tensors (in the names of the result)', missing),
            ('unknown tensors', unknown),
            ('tensors of another shape', shapes),
        )
        if keys
    ]


def _some(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ', '.join(keys[:_SHOWN]) + (f' and {more} more' if more > 0 else '')


def _quoted(names: list[str]) -> str:
    return ' or '.join(map(repr, names))


__all__ = ['convert_mdistiller_state_dict', 'find_mdistiller_archs']
