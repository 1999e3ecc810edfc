# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Loading pretrained weights so that nothing is skipped unseen."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.logging import print_log
from torch import Tensor, nn

from mmfakd.utils.fetch_checkpoint import fetch_checkpoint

_SHOWN = 6


def load_weights(
    model: nn.Module,
    source: str,
    role: str,
    required: Sequence[str] | None = ('',),
) -> None:
    """Load the weights of a teacher or a student.

    Unlike MMEngine's ``load_checkpoint``, which warns and goes on, weights that do
    not fit are an error, as a teacher with random layers teaches noise.

    Args:
        model (nn.Module): The model to fill.
        source (str): A path, URL or model-zoo name; see
            :func:`~mmfakd.utils.fetch_checkpoint.fetch_checkpoint`.
        role (str): ``'teacher'`` or ``'student'``, for messages.
        required (Sequence[str], optional): Prefixes of the parameters that the
            checkpoint must hold; ``''`` stands for all, None for no more than one
            matching key. Other missing keys are logged.

    Raises:
        FileNotFoundError: If there is no such file or name.
        ValueError: If no key matches, a shape differs or a required key is missing.
    """
    state_dict = _state_dict_of(fetch_checkpoint(source), source)
    own = model.state_dict()
    matched = own.keys() & state_dict.keys()
    head = f'{role} checkpoint {source!r}'
    if not matched:
        raise ValueError(
            f'{head}: none of its {len(state_dict)} keys is one of the '
            f'{type(model).__name__}. It has {_some(state_dict)}; expected '
            f'{_some(own)}. Convert the checkpoint (see tools/model_converters) or '
            f'choose the {role} that it belongs to.'
        )
    differing = [
        f'{key}: {tuple(state_dict[key].shape)} in the file, '
        f'{tuple(own[key].shape)} in the model'
        for key in own
        if key in matched and state_dict[key].shape != own[key].shape
    ]
    if differing:
        raise ValueError(
            f'{head}: {len(differing)} tensors have another shape than in the '
            f'{type(model).__name__}: {_some(differing, "; ")}. Choose the checkpoint '
            f'of this {role}, or set its config (number of classes, widths) to the '
            "checkpoint's."
        )
    missing = [
        key
        for key in own
        if key not in matched and not key.endswith('num_batches_tracked')
    ]
    needed = [key for key in missing if required and key.startswith(tuple(required))]
    if needed:
        raise ValueError(
            f'{head}: {len(needed)} tensors of the {type(model).__name__} are not in '
            f'it: {_some(needed)}. Choose the checkpoint of this {role}.'
        )
    model.load_state_dict({key: state_dict[key] for key in matched}, strict=False)
    ignored = [key for key in state_dict if key not in own]
    notes = [
        f'{len(keys)} {what}: {_some(keys)}'
        for what, keys in (('missing', missing), ('ignored', ignored))
        if keys
    ]
    print_log(
        f'Loaded {len(matched)} tensors of the {role} from {source}.'
        + (f' {"; ".join(notes)}.' if notes else ''),
        logger='current',
    )


def _state_dict_of(checkpoint: dict, source: str) -> dict[str, Tensor]:
    """Find the weights in an mmengine, mdistiller, distillation or plain file."""
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    state_dict = {k: v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    if not state_dict:
        raise ValueError(
            f'{source!r} holds no weights: expected a state dict, or one under '
            f"'state_dict' or 'model'; got the keys {_some(checkpoint)}."
        )
    prefix = 'architecture.'
    if any(key.startswith(prefix) for key in state_dict):
        state_dict = {
            key[len(prefix) :]: value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
    return state_dict


def _some(keys, separator: str = ', ') -> str:
    shown = list(keys)[:_SHOWN]
    more = len(keys) - len(shown)
    return separator.join(shown) + (f'{separator}... and {more} more' if more else '')


__all__ = ['load_weights']
