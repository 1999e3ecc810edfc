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
from .state_dict import COUNTER, some, without_wrappers

_MEAN, _FOLDED = '.bn.running_mean', '.conv.bias'
_CLASSIFIER = re.compile(r'^(fc|linear|classifier(\.0)?)\.(?=weight$|bias$)')


def _in_sequence(index: str) -> tuple[int, str]:
    """Which of a sequence's conv, norm, activation, conv, ... and what it is."""
    number, part = divmod(int(index), 3)
    return number, ('conv', 'bn', 'activate')[part]


def _vgg(match: re.Match) -> str:
    number, part = _in_sequence(match[2])
    return f'layer{int(match[1]) + 1}.conv{number + 1}.{part}.'


def _shufflenet_v2(match: re.Match) -> str:
    number = int(match[3])
    # The first block of a stage has two branches of two and three convolutions.
    branch = 2
    if match[2] == '0':
        branch, number = (1, number) if number < 3 else (2, number - 2)
    return f'{match[1]}.branch{branch}.{number - 1}.'


# Place of the zoo's groups of blocks: stage, and how many modules stand before.
_MOBILENET_V2_GROUPS = [(1, 0), (1, 2), (2, 0), (3, 0), (3, 4), (4, 0), (4, 3)]
# First block of each stage; the stem is 0.
_MOBILENET_V1_STARTS = {4: 12, 3: 6, 2: 4, 1: 1}


def _mobilenet_v2_stem(match: re.Match) -> str:
    return f'{match[1]}.{_in_sequence(match[2])[1]}.'


def _mobilenet_v2(match: re.Match) -> str:
    stage, before = _MOBILENET_V2_GROUPS[int(match[1])]
    position = before + int(match[2])
    number, part = _in_sequence(match[3])
    name = ('expand_conv.', 'depthwise_conv.', 'linear_conv.')[number]
    if match[1] == '0':
        # Its first convolution stands before the block.
        position, name = (position, '') if number == 0 else (position + 1, name)
    return f'layer{stage}.{position}.{name}{part}.'


def _mobilenet_v1(match: re.Match) -> str:
    block = int(match[1])
    number, part = _in_sequence(match[2])
    if block == 0:
        return f'conv{number + 1}.{part}.'
    stage = next(s for s, start in _MOBILENET_V1_STARTS.items() if block >= start)
    name = ('depthwise_conv', 'pointwise_conv')[number]
    return f'layer{stage}.{block - _MOBILENET_V1_STARTS[stage]}.{name}.{part}.'


# The convolution and the norm of one number make one module.
_NUMBERED: list[tuple] = [
    (r'\bconv(\d)\.weight$', r'conv\1.conv.weight'),
    (r'\bbn(\d)\.', r'conv\1.bn.'),
]
# What is replaced, one after the other, in the names of a backbone's tensors, by the
# type of the backbone.
_RENAMES: dict[str, list[tuple[str, str | Callable[[re.Match], str]]]] = {
    'mmfakd.CIFARMobileNetV2': [
        (r'^(conv[12])\.(\d)\.', _mobilenet_v2_stem),
        (r'^blocks\.([0-6])\.(\d+)\.conv\.([0-8])\.', _mobilenet_v2),
    ],
    'mmfakd.CIFARResNet': [],
    'mmfakd.CIFARShuffleNetV1': _NUMBERED,
    'mmfakd.CIFARShuffleNetV2': [
        *_NUMBERED,
        (r'^(layer\d\.(\d+))\.conv(\d)\.', _shufflenet_v2),
    ],
    'mmfakd.CIFARVGG': [(r'^block(\d)\.(\d+)\.', _vgg)],
    'mmfakd.MobileNetV1': [(r'^model\.(\d+)\.([0-5])\.', _mobilenet_v1)],
    'mmrazor.WideResNet': [
        (r'^block(\d)\.layer\.', r'layer\1.'),
        (r'\.convShortcut\.', '.downsample.'),
    ],
    'ResNet': [],
    'ResNet_CIFAR': [(r'\.shortcut\.', '.downsample.')],
}


def convert_mdistiller_state_dict(
    state_dict: Mapping[str, Tensor], arch: str
) -> dict[str, Tensor]:
    """Convert the weights of a network of the mdistiller zoo.

    The zoo's checkpoints are also those of CRD and most of the literature on CIFAR.
    ``resnet18``, ``resnet34`` and ``resnet50`` are torchvision's, with which the
    literature begins on ImageNet.

    Args:
        state_dict (Mapping[str, Tensor]): The weights. Prefixes ``module.`` and
            ``_orig_mod.`` of wrappers are dropped; counters of batch norm that files of
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
    if not state_dict:
        raise ValueError(
            f'convert_mdistiller_state_dict got an empty state dict, expected weights '
            f'of {arch!r}: check the file, or the key that holds its state dict.'
        )
    others = [key for key, v in state_dict.items() if not isinstance(v, Tensor)]
    if others:
        raise ValueError(
            f'convert_mdistiller_state_dict got {some(others)} that are no tensors, '
            "expected a state dict: pass what the checkpoint holds under 'model' or "
            "'state_dict'."
        )
    state_dict = without_wrappers(state_dict)
    problems = _problems(state_dict, arch)
    if problems:
        others = find_mdistiller_archs(state_dict)
        raise ValueError(
            f'These are no weights of {arch!r}: {"; ".join(problems)}. '
            + (
                f'They are those of {" or ".join(map(repr, others))}: give that name '
                'instead.'
                if others
                else 'Nor are they those of another network of the mdistiller zoo.'
            )
        )
    names = _names(state_dict, arch)
    converted = {names[key]: value.clone() for key, value in state_dict.items()}
    for key in _shapes(arch, _num_classes(state_dict)):
        if key.endswith(COUNTER):
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
    state_dict = without_wrappers(state_dict)
    return [arch for arch in MDISTILLER_ARCHS if not _problems(state_dict, arch)]


def _names(keys: Iterable[str], arch: str) -> dict[str, str]:
    """Names of the zoo and those of our classifier."""
    rules = _RENAMES[mdistiller_model_cfg(arch)['backbone']['type']]
    names = {key: _CLASSIFIER.sub('head.fc.', key) for key in keys}
    for key, name in names.items():
        if name == key:
            for pattern, new in rules:
                name = re.sub(pattern, new, name)
            names[key] = f'backbone.{name}'
    return names


def _num_classes(state_dict: Mapping[str, Tensor]) -> int | None:
    heads = (value for key, value in state_dict.items() if _CLASSIFIER.match(key))
    return next((len(value) or None for value in heads if value.dim()), None)


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
    missing = [k for k in expected if k not in found and not k.endswith(COUNTER)]
    shapes = [
        f'{theirs} {tuple(state_dict[theirs].shape)} instead of {tuple(expected[ours])}'
        for ours, theirs in found.items()
        if state_dict[theirs].shape != expected[ours]
    ]
    return [
        f'{len(keys)} {what}: {some(keys)}'
        for what, keys in (
            ('missing tensors (in the names of the result)', missing),
            ('unknown tensors', unknown),
            ('tensors of another shape', shapes),
        )
        if keys
    ]
