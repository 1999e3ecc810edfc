# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Loading pretrained weights so that nothing is skipped unseen."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from mmengine.logging import print_log
from torch import Tensor, nn

from mmfakd.model_zoo.published import published_entry
from mmfakd.model_zoo.shipped import config_names

from .deeper import cuts_backbone, deeper_parts
from .fetch import fetch_checkpoint
from .state_dict import COUNTER, find_state_dict, fits_little, some, tensor_shapes
from .student import PREFIX, student_state_dict

_some = partial(some, most=6, cut=', ...')
_AS_FAR_AS_IT_FITS = (
    ' To begin with what fits, as for other classes, give the file as `load_from` in '
    'place of `student_ckpt`: that leaves out the rest, and says so.'
)


def load_weights(
    model: nn.Module,
    source: str,
    role: str,
    required: Sequence[str] | None = ('',),
    option: str = '',
) -> list[str]:
    """Load the weights of a teacher, a student or a model that is tested.

    Unlike MMEngine's ``load_checkpoint``, which warns and goes on, weights that do
    not fit are an error, as a teacher with random layers teaches noise.

    Args:
        model (nn.Module): The model to fill.
        source (str): A path, URL or model-zoo name; see
            :func:`~mmfakd.checkpoints.fetch.fetch_checkpoint`.
        role (str): ``'teacher'``, ``'student'`` or ``'model'``, for messages.
        required (Sequence[str], optional): Prefixes of the parameters that the
            checkpoint must hold; ``''`` stands for all, None for no more than one
            matching key. Other missing keys are logged.
        option (str): Option of the commands that takes another source in place of the
            config's, for messages. Defaults to none.

    Returns:
        list[str]: The keys that were filled.

    Raises:
        FileNotFoundError: If there is no such file or name.
        ValueError: If no key matches, a shape differs, a required key is missing, or
            the checkpoint's backbone has more blocks than one that is required.
    """
    head = _head(source, role)
    state_dict = find_state_dict(_fetch(source, role, option), head)
    full = model.state_dict()
    state_dict = _of_student(state_dict, full)
    own = [key for key in full if not key.endswith(COUNTER)]
    try:
        # The model itself loads: it may rename keys of older versions and resize
        # position embeddings.
        missing, ignored = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(
            f'{head}: {len(reasons)} tensors do not fit the {type(model).__name__}: '
            f'{some(reasons, 6, " ", " ...")} Choose the checkpoint of this {role}, or '
            "set its config (number of classes, widths) to the checkpoint's."
            + (_AS_FAR_AS_IT_FITS if option == '--student-ckpt' else '')
        ) from error
    # Some models, such as SwinV2, take tables that they compute from no checkpoint.
    missing = [k for k in missing if not k.endswith(COUNTER) and k not in state_dict]
    matched = len(own) - len(missing)
    if matched == 0:
        raise ValueError(
            f'{head}: none of its {len(state_dict)} keys is one of the '
            f'{type(model).__name__}. It has {_some(state_dict)}; expected '
            f'{_some(own)}. Convert the checkpoint (`mmfakd convert`) or choose the '
            f'{role} that it belongs to.'
        )
    shapes = tensor_shapes(state_dict), tensor_shapes(full)
    if required is None and fits_little(*shapes):
        raise ValueError(
            f'{head}: {matched} of its {len(state_dict)} tensors fit the '
            f'{type(model).__name__}, which has {len(own)}: it is of another model. It '
            f'has {_some(ignored)} beside; the {role} needs {_some(missing)}. Choose '
            f'the checkpoint of this {role}.'
        )
    needed = [key for key in missing if required and key.startswith(tuple(required))]
    if needed:
        refuse_missing(needed, model, source, role)
    _refuse_deeper(model, ignored, head, required)
    notes = [
        f'{len(keys)} {what}: {_some(keys)}'
        for what, keys in (('missing', missing), ('ignored', ignored))
        if keys
    ]
    print_log(
        f'Loaded {matched} tensors of the {role} from {source}.'
        + (f' {"; ".join(notes)}.' if notes else ''),
        logger='current',
    )
    return [key for key in own if key not in missing]


def refuse_missing(
    keys: Collection[str], model: nn.Module, source: str, role: str
) -> NoReturn:
    """Refuse a checkpoint that lacks tensors.

    Args:
        keys (Collection[str]): Which ones.
        model (nn.Module): The model that needs them.
        source (str): Where the checkpoint comes from.
        role (str): As for :func:`load_weights`.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f'{_head(source, role)}: {len(keys)} tensors of the {type(model).__name__} are '
        f'not in it: {_some(keys)}. Choose the checkpoint of this {role}.'
    )


def _head(source: str, role: str) -> str:
    return f'{role} checkpoint {source!r}'


def _fetch(source: str, role: str, option: str) -> dict:
    """Load a checkpoint; says whose weights are missing, and how to come by them."""
    try:
        return fetch_checkpoint(source)
    except FileNotFoundError as error:
        text = f'{role} checkpoint: {error}'
        if option:
            text += f' `{option}` takes another one.'
        # A config of mmfakd names the file that its training would make.
        name = Path(source).parent.name
        if name in config_names():
            text += f' `mmfakd train {name}` makes it'
            with suppress(ValueError):
                published_entry(name)
                text += f'; the name {name!r} in its place takes published weights'
            text += '.'
        raise FileNotFoundError(text) from error


def _of_student(
    state_dict: OrderedDict[str, Tensor], own: Iterable[str]
) -> OrderedDict[str, Tensor]:
    """Take the student's tensors out of a distillation's, or of several in another."""
    distilled = any(key.startswith(PREFIX) for key in own)
    while inner := student_state_dict(state_dict):
        state_dict = inner
        if distilled:
            # What stands below is the student's own: it is a distillation itself.
            break
    return state_dict


def _refuse_deeper(
    model: nn.Module, ignored: Iterable[str], head: str, required: Sequence[str] | None
) -> None:
    """Refuse a backbone that would be cut; warn where another part would be."""
    deeper = deeper_parts(model, ignored)
    # An empty tuple is the beginning of nothing.
    wanted = tuple(required or ())
    refused = [
        part
        for part in deeper
        if f'{part}.'.startswith(wanted) and cuts_backbone(model, part, '' in wanted)
    ]
    for part in refused or list(deeper)[:1]:
        text = (
            f'{head}: the checkpoint has {part}, the {type(model).__name__} ends at '
            f'{deeper[part]}: it is of a deeper network'
        )
        if refused:
            raise ValueError(
                f"{text}. Set the depth in the config to the checkpoint's, or choose "
                'the other file. Who cuts a network on purpose takes the tensors that '
                'are too many out of the file.'
            )
        print_log(
            f'{text}, or has more branches or outputs there. What is too many is left '
            f'out ({_some(deeper)}). If that is not meant, choose the other file.',
            logger='current',
            level=logging.WARNING,
        )
