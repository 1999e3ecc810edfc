# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""State dicts in checkpoints of all kinds, and their keys in messages."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from torch import Size, Tensor

from mmfakd.messages import printable

# Batches that a norm has seen. Old checkpoints have no counters, and norms need none.
COUNTER = 'num_batches_tracked'
# What `Module.get_extra_state` gives stands under such a key, and may be no tensor.
_EXTRA_STATE = '_extra_state'
# What torch.compile puts before the names of a model's, or a part's, tensors, and data
# parallelism before all of a model's.
_COMPILED = re.compile(r'(?:^|(?<=\.))_orig_mod\.')
_PARALLEL = 'module.'
# What averaged models count, beside a model under `module.`: torch's and MMEngine's.
_AVERAGED = ('n_averaged', 'steps')
# Where libraries keep weights; averaged ones only where there are no others.
_PLACES = (
    *('state_dict', 'model', 'model_state_dict', 'model_state', 'net', 'network'),
    *('module', 'weights', 'params', 'state_dict_ema', 'ema_state_dict', 'model_ema'),
    *('ema', 'params_ema'),
)


def find_state_dict(checkpoint: Mapping, name: str = 'it') -> OrderedDict[str, Tensor]:
    """Find the weights in an mmengine, mdistiller, distillation or plain checkpoint.

    Args:
        checkpoint (Mapping): A state dict, or one under ``state_dict``, ``model`` or
            another key that libraries use, averaged weights last; a key of any name
            will do where it alone holds weights.
        name (str): What messages call it.

    Returns:
        OrderedDict[str, Tensor]: Its tensors, of any shape, and what modules keep as
        ``_extra_state``, with the layout versions of the modules, as
        ``Module.state_dict`` attaches them, and without the names of wrappers.

    Raises:
        ValueError: If there are no weights, or some without a name.
    """
    weights = weights_in(checkpoint)
    state_dict = OrderedDict(
        (key, value)
        for key, value in weights.items()
        if isinstance(value, Tensor) or str(key).endswith(_EXTRA_STATE)
    )
    if not tensor_shapes(state_dict):
        raise ValueError(
            f'{name} holds no weights: expected a state dict, or one under '
            f"'state_dict' or 'model'; got the keys {some(map(str, checkpoint), 6)}."
        )
    strange = [repr(key) for key in state_dict if not isinstance(key, str)]
    if strange:
        raise ValueError(
            f'{name} has weights under {some(strange)}, which are no names; expected '
            'tensors by the names of their layers, as `Module.state_dict()` has them.'
        )
    # With it modules know older layouts of theirs; see torch's load_state_dict.
    state_dict._metadata = getattr(weights, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return without_wrappers(state_dict)


def weights_in(checkpoint: Mapping) -> Mapping:
    """Find the part of a checkpoint that holds tensors by their names.

    Args:
        checkpoint (Mapping): As for :func:`find_state_dict`.

    Returns:
        Mapping: The part as it is, or the checkpoint where no part is known to be it.
    """
    parts = {
        key: part
        for key, part in checkpoint.items()
        if isinstance(part, Mapping) and _has_tensors(part)
    }
    # Before loose tensors, such as a score or a random state beside the weights.
    first = [parts[key] for key in _PLACES if key in parts]
    if not first and len(parts) == 1 and not _has_tensors(checkpoint):
        first = list(parts.values())
    # Under the same names, loose ones are the weights themselves, these their average.
    return first[0] if first and not first[0].keys() & checkpoint.keys() else checkpoint


def _has_tensors(values: Mapping) -> bool:
    return any(isinstance(value, Tensor) for value in values.values())


def without_wrappers(state_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Undo what data parallelism and ``torch.compile`` do to names.

    Args:
        state_dict (Mapping[str, Any]): Weights, whose names may begin with
            ``module.``, ``_orig_mod.``, or several of them. A compiled part of a model
            has ``_orig_mod.`` in the middle of its names. An averaged model has a
            counter beside ``module.``.

    Returns:
        OrderedDict[str, Any]: The same under the names of the model itself, without
        the counters of averaged models.
    """
    renamed = OrderedDict(
        (_COMPILED.sub('', key), value) for key, value in state_dict.items()
    )
    # The layout versions of the modules are under their names, too.
    versions = OrderedDict(
        (_COMPILED.sub('', f'{key}.')[:-1], value)
        for key, value in getattr(state_dict, '_metadata', {}).items()
    )
    while inner := _under_module(renamed):
        renamed = inner
        versions = OrderedDict(
            (key[len(_PARALLEL) :], value)
            for key, value in versions.items()
            if f'{key}.'.startswith(_PARALLEL)
        )
    renamed._metadata = versions  # type: ignore[attr-defined]
    return renamed


def with_printable_names(
    state_dict: Mapping[str, Any], known: Container[str]
) -> Mapping[str, Any]:
    """Write control characters in names as escapes, so that messages may show them.

    Args:
        state_dict (Mapping): A stranger's, for example.
        known (Container[str]): Names of the model, which stay, to be loaded.

    Returns:
        Mapping: It itself where there are none. Otherwise a copy with the layout
        versions of its modules.
    """
    names = [key if key in known else printable(key) for key in state_dict]
    if names == list(state_dict):
        return state_dict
    shown = OrderedDict(zip(names, state_dict.values()))
    shown._metadata = getattr(state_dict, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return shown


def _under_module(state_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """The weights of the model that one wrapper holds; none without a wrapper."""
    inside = [
        key
        for key, value in state_dict.items()
        if key not in _AVERAGED or not isinstance(value, Tensor) or value.dim()
    ]
    if not all(key.startswith(_PARALLEL) for key in inside):
        return OrderedDict()
    return OrderedDict((key[len(_PARALLEL) :], state_dict[key]) for key in inside)


def tensor_shapes(state_dict: Mapping[str, Any]) -> dict[str, Size]:
    """Shapes of the tensors of a state dict.

    Args:
        state_dict (Mapping[str, Any]): Tensors, and whatever else is kept.

    Returns:
        dict[str, Size]: Name -> shape.
    """
    return {k: v.shape for k, v in state_dict.items() if isinstance(v, Tensor)}


def fits_little(
    given: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]]
) -> bool:
    """Whether a checkpoint is of another model, not of a part or another head of it.

    Args:
        given (Mapping[str, Sequence[int]]): Name -> shape of its tensors.
        own (Mapping[str, Sequence[int]]): The same of the model.

    Returns:
        bool: True if fewer than half of the given tensors fit, and they fill less
        than half of the model, counters aside.
    """
    fit = sum(
        own.get(key) == shape
        for key, shape in given.items()
        if not key.endswith(COUNTER)
    )
    counts = (sum(not k.endswith(COUNTER) for k in keys) for keys in (given, own))
    return all(2 * fit < count for count in counts)


def some(
    names: Iterable[str], most: int = 4, separator: str = ', ', cut: str = ''
) -> str:
    """List names, not all of them if there are many.

    Args:
        names (Iterable[str]): The names.
        most (int): How many to list.
        separator (str): What stands between them.
        cut (str): What ends a list that is cut, before the number of the others.

    Returns:
        str: The list, or ``'none'``.
    """
    names = list(map(printable, names))
    more = len(names) - most
    listed = separator.join(names[:most]) or 'none'
    return listed + (f'{cut} and {more} more' if more > 0 else '')
