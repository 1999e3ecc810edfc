# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How data preprocessors normalise images, whatever library they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from torch import Tensor, nn

from mmfakd.messages import near_names, quoted

# An image as it is, of any number of channels.
RAW: dict[str, Any] = dict(
    mean=torch.zeros(1), std=torch.ones(1), swap=False, pad_value=0.0
)
# What libraries call it: mmengine and mmdet, mmpretrain, mmseg.
_SWAPS = (
    *('to_rgb', '_channel_conversion', 'channel_conversion'),
    *('bgr_to_rgb', 'rgb_to_bgr'),
)
_PADS = ('pad_value', 'pad_val')
_GIVEN = ('mean', 'std', 'to_rgb', 'bgr_to_rgb', 'rgb_to_bgr', 'pad_value', 'channels')
# Arguments of preprocessors that have no say here: size, labels and augmentation are
# the student's.
_BESIDE = (
    *('type', '_scope_', 'pad_val', 'pad_size_divisor', 'size', 'size_divisor'),
    *('seg_pad_val', 'seg_pad_value', 'pad_seg', 'pad_mask', 'mask_pad_value'),
    *('num_classes', 'to_onehot', 'batch_augments', 'boxtype2tensor', 'non_blocking'),
    *('boxlist2tensor', 'test_cfg', 'format_shape', 'data_preprocessor'),
)
_LIBRARIES = ('mmengine', 'mmpretrain', 'mmdet', 'mmseg', 'mmyolo', 'mmrazor', 'mmfakd')
_CURE = (
    'Say what the teacher was trained with, `teacher_preprocessor=dict(mean=[...], '
    'std=[...], to_rgb=...)`, or give `teacher_preprocessor=dict()` if it is used to '
    "the student's batch as it is."
)


def read_normalisation(
    preprocessor: nn.Module | Mapping[str, Any], role: str = 'teacher'
) -> dict[str, Any]:
    """Read what a preprocessor says of its normalisation.

    Args:
        preprocessor (nn.Module | Mapping): A data preprocessor, or a dict with any of
            ``mean``, ``std``, ``to_rgb`` (or ``bgr_to_rgb``, ``rgb_to_bgr``),
            ``pad_value`` (or ``pad_val``); arguments that do not touch normalisation
            may stand beside.
        role (str): Whose it is, for messages.

    Returns:
        dict: Of ``mean`` and ``std`` (tensors of C or 1 values), ``swap`` and
        ``pad_value`` what it says. Empty where it leaves images to others.

    Raises:
        ValueError: If a dict has another key, a value is none, or nothing can be read
            of a class of somebody's own.
    """
    preprocessor = _innermost(preprocessor)
    names = ('mean', 'std', *_PADS, *_SWAPS)
    given: Any = preprocessor
    if isinstance(preprocessor, Mapping):
        _check_keys(preprocessor)
    else:
        given = {name: getattr(preprocessor, name, None) for name in names}
    given = {name: given[name] for name in names if given.get(name) is not None}
    found: dict[str, Any] = {
        name: _numbers(name, given[name], preprocessor, role)
        for name in ('mean', 'std')
        if name in given
    }
    swaps = [given[name] for name in _SWAPS if name in given]
    if swaps:
        found['swap'] = any(swaps)
    pads = [given[name] for name in _PADS if name in given]
    if pads:
        found['pad_value'] = float(pads[0])
    if isinstance(preprocessor, Mapping) or 'mean' in found:
        return found
    _refuse_unknown(preprocessor, role)
    # mmseg's, too, always stands in the model.
    in_model = isinstance(preprocessor, ImgDataPreprocessor) or hasattr(
        preprocessor, 'seg_pad_val'
    )
    return dict(RAW, **found) if in_model or found.get('swap') else {}


def same_preprocessors(one: nn.Module, other: nn.Module | Mapping) -> bool:
    """Whether two preprocessors do the same, whatever that is.

    Args:
        one (nn.Module): A preprocessor.
        other (nn.Module | Mapping): Another one.

    Returns:
        bool: True if they are of one class, with equal buffers and settings.
    """
    if type(one) is not type(other) or not isinstance(other, nn.Module):
        return False
    hidden = tuple(vars(nn.Module()))
    own, others = (
        {k: v for k, v in vars(p).items() if k not in hidden} for p in (one, other)
    )
    tensors, other_tensors = dict(one.named_buffers()), dict(other.named_buffers())
    return (
        repr(own) == repr(others)
        and tensors.keys() == other_tensors.keys()
        and all(torch.equal(tensors[k], other_tensors[k]) for k in tensors)
    )


def _innermost(preprocessor: Any) -> Any:
    """Take one out of what applies it branch by branch (mmdet's semi-supervised)."""
    inner = getattr(preprocessor, 'data_preprocessor', None)
    if isinstance(preprocessor, nn.Module) and isinstance(inner, nn.Module):
        return _innermost(inner)
    return preprocessor


def _check_keys(given: Mapping[str, Any]) -> None:
    known = (*_GIVEN, *_BESIDE)
    for key in given:
        if key not in known:
            raise ValueError(
                f'teacher_preprocessor has {key}={given[key]!r}, which says nothing of '
                f'normalisation. Near names: {quoted(near_names(key, _GIVEN))}. It '
                f'takes {quoted(_GIVEN)}.'
            )


def _numbers(name: str, value: Any, owner: Any, role: str) -> Tensor:
    kind = 'teacher_preprocessor'
    if not isinstance(owner, Mapping):
        kind = f"the {role}'s {type(owner).__name__}"
    try:
        numbers = torch.as_tensor(value).detach().float().flatten().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f'{name} of {kind} is {value!r}; expected one number or one for each '
            f'channel. {_CURE}'
        ) from error
    if not numbers.numel() or not numbers.isfinite().all():
        raise ValueError(f'{name} of {kind} is {value!r}; expected finite numbers.')
    if name == 'std' and not numbers.all():
        raise ValueError(f'std of {kind} is {value!r}; expected numbers above 0.')
    return numbers


def _refuse_unknown(preprocessor: Any, role: str) -> None:
    """Refuse a class of which nothing is known and nothing can be read."""
    if not isinstance(preprocessor, nn.Module):
        return
    owner = next(c for c in type(preprocessor).__mro__ if 'forward' in vars(c))
    library = owner.__module__.partition('.')[0]
    if owner is BaseDataPreprocessor or library in _LIBRARIES:
        return
    if isinstance(preprocessor, ImgDataPreprocessor):
        return
    raise ValueError(
        f"the {role}'s data preprocessor, {type(preprocessor).__name__}, has no "
        '`mean`, so that it is unknown how it normalises, and the teacher cannot be '
        'given what it is used to. Let the class keep what it does in attributes '
        f'`mean`, `std`, `to_rgb` and `pad_value`. {_CURE}'
    )


def choose_channels(given: int, wanted: int) -> list[int] | None:
    """Choose channels of the student's batch for a teacher of another number.

    Args:
        given (int): How many channels the batch has.
        wanted (int): How many the teacher takes.

    Returns:
        list[int], optional: The first ones, or the only one several times; None where
        there are several, but not enough.
    """
    if given == 1:
        return [0] * wanted
    return list(range(wanted)) if wanted <= given else None


def pick_channels(value: Any) -> list[int]:
    """Check which channels of the student's batch the teacher is to get.

    Args:
        value (Sequence[int]): Their indices, in the teacher's order.

    Returns:
        list[int]: The same.

    Raises:
        ValueError: If they are no whole numbers of 0 or more.
    """
    several = isinstance(value, Sequence) and not isinstance(value, str) and value
    if several and all(type(i) is int and i >= 0 for i in value):
        return list(value)
    raise ValueError(
        f'teacher_preprocessor: channels={value!r}; expected indices of channels of '
        "the student's batch, from 0, such as [0, 1, 2], or [0, 0, 0] for a teacher of "
        'three channels and grey images.'
    )
