# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Weights of the published FAM-KD implementation in mmfakd's layers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmfakd.ops.filter_storage import pack_filter

from .state_dict import some

_FILTER = {
    'weights1': 'filter',
    'w0.weight': 'local.weight',
    'w0.bias': 'local.bias',
    'rate1': 'gate_global',
    'rate2': 'gate_local',
}
_ATTENTION = {
    'rel_h': 'row_offset',
    'rel_w': 'column_offset',
    'query_conv.weight': 'query.weight',
    'key_conv.weight': 'key.weight',
    'value_conv.weight': 'value.weight',
}
_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def _block(theirs: str, ours: str) -> dict[str, str]:
    """Names of a 1x1 convolution with norm."""
    return {
        f'{theirs}.0.weight': f'{ours}.conv.weight',
        **{f'{theirs}.1.{key}': f'{ours}.norm.{key}' for key in _NORM},
    }


_LEVEL = {
    **_block('conv1_x', 'match'),
    **_block('conv1', 'match_deeper'),
    **{f'att_conv.{key}': f'fusion.{value}' for key, value in _ATTENTION.items()},
    **{f'conv2.0.{key}': f'transform.{value}' for key, value in _FILTER.items()},
    **{f'conv2.1.{key}': f'norm.{key}' for key in _NORM},
}


def convert_famkd_state_dict(
    state_dict: Mapping[str, Tensor], high_pass: float = 0.1
) -> dict[str, Tensor]:
    """Convert weights of the published FAM-KD implementation.

    What the keys belong to is recognised:

    - ``weights1``, ``w0.*``, ``rate1``, ``rate2``: one frequency attention, for
      :class:`~mmfakd.models.layers.FrequencyAttention`;
    - ``rel_h``, ``rel_w``, ``*_conv.weight``: one cross attention, for
      :class:`~mmfakd.models.layers.LocalCrossAttention`;
    - ``conv2.0.weights1`` and so on: one level, for
      :class:`~mmfakd.models.connectors.ReviewLevel`;
    - ``0.conv2.0.weights1`` and so on: all levels, deepest first, for
      :class:`~mmfakd.models.connectors.ReviewConnector`, shallow to deep.

    The converted layers compute what the published ones compute, and SGD trains
    them alike. A convolution ``conv1`` of a level without attention has no effect
    there and is left out.

    Source: names and meaning from the published implementation of *Frequency
    Attention for Knowledge Distillation* (arXiv 2403.05894).

    Args:
        state_dict (Mapping[str, Tensor]): The published weights. ``weights1`` has the
            shape (Ci, Co, H, W), complex, or (Ci, Co, H, W, 2), real.
        high_pass (float): Cut-off that the weights were trained with, and that the
            new layer must have. Defaults to 0.1.

    Returns:
        dict[str, Tensor]: State dict of the class named above, for
        ``load_state_dict`` with ``strict=True``. Tensors are copies.

    Raises:
        ValueError: If keys are unknown or missing; they are listed. For values that are
            no tensors, and a ``weights1`` of another shape or kind.
    """
    if not state_dict:
        raise ValueError(
            'convert_famkd_state_dict got an empty state dict, expected weights of '
            'FAM-KD: check the file, or the key that holds its state dict.'
        )
    state_dict = dict(state_dict)
    if all(re.match(r'\d+\.', key) for key in state_dict):
        return _convert_levels(state_dict, high_pass)
    for names in (_FILTER, _ATTENTION):
        if state_dict.keys() & names.keys():
            return _rename(state_dict, names, high_pass)
    return _convert_level(state_dict, high_pass)


def _convert_levels(
    state_dict: dict[str, Tensor], high_pass: float
) -> dict[str, Tensor]:
    """Convert the list of levels, deepest first, to levels shallow to deep."""
    levels: dict[int, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        number, name = key.split('.', 1)
        levels.setdefault(int(number), {})[name] = value
    if sorted(levels) != list(range(len(levels))):
        raise ValueError(
            f'convert_famkd_state_dict got levels {sorted(levels)}, expected 0 to '
            f'{len(levels) - 1} without gaps: pass the whole list of levels, '
            'deepest first.'
        )
    return {
        f'levels.{len(levels) - 1 - index}.{key}': value
        for index in sorted(levels, reverse=True)
        for key, value in _convert_level(levels[index], high_pass, f'{index}.').items()
    }


def _convert_level(
    state_dict: dict[str, Tensor], high_pass: float, prefix: str = ''
) -> dict[str, Tensor]:
    """Convert one level, without the block that has no effect."""
    # A block is there as a whole or not at all; `conv2` is always there.
    blocks = {key.split('.')[0] for key in state_dict} | {'conv2'}
    names = {key: name for key, name in _LEVEL.items() if key.split('.')[0] in blocks}
    converted = _rename(state_dict, names, high_pass, prefix)
    if 'att_conv' in blocks:
        return converted
    return {k: v for k, v in converted.items() if not k.startswith('match_deeper.')}


def _rename(
    state_dict: dict[str, Tensor],
    names: dict[str, str],
    high_pass: float,
    prefix: str = '',
) -> dict[str, Tensor]:
    """Rename the keys of one module, and reshape what is stored differently."""
    unknown = [prefix + key for key in state_dict if key not in names]
    missing = [
        prefix + key
        for key in names
        if key not in state_dict and not key.endswith('num_batches_tracked')
    ]
    if unknown or missing:
        raise ValueError(
            'convert_famkd_state_dict does not recognise this state dict. Unknown '
            f'keys: {some(unknown, 20)}. Missing keys: {some(missing, 20)}. Expected '
            'is a frequency attention (weights1, w0.weight, w0.bias, rate1, rate2), a '
            'cross attention (rel_h, rel_w, *_conv.weight), a level (conv1_x, conv1, '
            'att_conv, conv2) or a list of levels (0.conv2... and so on): strip '
            'prefixes such as `module.` and other modules first.'
        )
    return {
        names[key]: _convert(prefix + key, value, high_pass)
        for key, value in state_dict.items()
    }


def _convert(key: str, value: Tensor, high_pass: float) -> Tensor:
    """Convert one tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(
            f'convert_famkd_state_dict got {key} of type {type(value).__name__}, '
            'expected a tensor: give the state dict as it was saved.'
        )
    name = key.split('.')[-1]
    if name == 'weights1':
        return pack_filter(_complex_filter(key, value), high_pass)
    value = value.detach().clone()
    if name in ('rate1', 'rate2'):
        return value.reshape(1)
    return value.flatten(1) if name in ('rel_h', 'rel_w') else value


def _complex_filter(key: str, value: Tensor) -> Tensor:
    """The full filter (Ci, Co, H, W), however it was saved."""
    if value.is_complex() and value.ndim == 4:
        return value
    if value.is_floating_point() and value.ndim == 5 and value.shape[-1] == 2:
        return torch.view_as_complex(value.contiguous())
    raise ValueError(
        f'convert_famkd_state_dict got {key} of shape {tuple(value.shape)} and dtype '
        f'{value.dtype}, expected (in_channels, out_channels, height, width), complex, '
        'or the same with a last dimension of 2, real and imaginary part: a filter '
        'that has lost its imaginary part cannot be converted.'
    )
