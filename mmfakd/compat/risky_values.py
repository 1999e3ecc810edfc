# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Values of configs that the libraries execute, or take files by that run something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .named_types import TYPE_KEYS, is_dataset, is_model_part

# What MMEngine reads with pickle, and with the loader of PyYAML that makes objects. It
# goes by what stands behind the last dot, also where there is none.
_OBJECTS = ('pkl', 'pickle', 'yaml', 'yml')
# Weights are read by mmfakd's loader, whatever their name ends in.
_WEIGHTS = ('checkpoint', 'pretrained', 'student_ckpt', 'teacher_ckpt')
# Given to `eval`; with what they hold where they are meant.
_EVALUATED = dict(
    # Of mmpretrain's torchvision transforms.
    dtype=r'[\w.]*',
    # Of mmcv's RFSearchHook.
    search_op=r'\w*',
    # Of mmcv's batched_nms, as `nms=dict(type=...)`.
    type=r'[\w./: -]*',
    # Of mmdet's CameraMotionCompensation.
    warp_mode=r'cv2\.\w+',
)
# What inferencers build of a config that comes with weights, by key, beside pipelines.
_BUILT = ('model', 'data_preprocessor', 'tta_model', 'visualizer', 'vis_backends')


class _Entry(NamedTuple):
    """A value, the key that it stands under, and where: what inferencers build there.

    That is a 'model', as which pipelines and visualizers count, a 'dataset', or
    nothing, ''.
    """

    key: str
    value: Any
    built: str


def find_risky_value(config: dict[str, Any]) -> str | None:
    """Tell which value of a config would run something where it is built.

    Args:
        config (dict): The config, plain values.

    Returns:
        str | None: The reason, None if there is none.
    """
    entries = list(_entries(config))
    for entry in entries:
        if reason := _risk_of_key(entry) or _risk_of_value(entry):
            return reason
    types = [e for e in entries if e.built and e.key in TYPE_KEYS]
    # Each is looked for once, however often a config names it.
    for key, kind, built in dict.fromkeys(e for e in types if isinstance(e.value, str)):
        if reason := _risk_of_part(kind, built):
            return f'its {key}={kind!r} is {reason}'
    return None


def _risk_of_part(kind: str, built: str) -> str | None:
    """What should not be built there: a metric may remove a folder where it ends."""
    if is_model_part(kind):
        return None
    if not is_dataset(kind):
        return 'nothing that models, data sets, pipelines or visualizers are made of'
    return 'a data set, which reads files' if built == 'model' else None


def _entries(value: Any, key: str = '', built: str = '') -> Iterator[_Entry]:
    """All values but dicts and lists, and all keys of dicts as values of no key."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield _Entry('', name, built)
            yield from _entries(part, str(name), _built_into(str(name), built))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from _entries(part, key, built)
    else:
        yield _Entry(key, value, built)


def _built_into(key: str, around: str) -> str:
    if key in _BUILT or key.endswith('pipeline'):
        return 'model'
    # A detector's is built for the colours of its classes.
    return around or ('dataset' if key == 'dataset' else '')


def _risk_of_key(entry: _Entry) -> str | None:
    """What a value means under its key, or as a key itself."""
    key, value, built = entry
    if key == 'trust_remote_code' and value:
        return 'it runs code of a model of Hugging Face, trust_remote_code'
    if not isinstance(value, str):
        return None
    if key in _EVALUATED and not re.fullmatch(_EVALUATED[key], value):
        return f'its {key}={value!r} would be executed'
    if key == 'sys_path':
        return f'it imports from a folder, sys_path={value!r}'
    if key == 'split_file' and built == 'model':
        return f'it unpickles a file, split_file={value!r}'
    # mmrazor puts names of modules between quotes, and executes that.
    if not key and built == 'model' and re.search(r"['\\]", value):
        return f'its key {value!r} would be executed'
    return None


def _risk_of_value(entry: _Entry) -> str | None:
    """Files that are read with what can run something."""
    key, value, built = entry
    if not key or not isinstance(value, str):
        return None
    # Those of data sets, on the disk, are read where a data set is.
    reached = built == 'model' or '://' in value or key == 'extra_ann_file'
    if reached and value.rpartition('.')[2] in _OBJECTS and key not in _WEIGHTS:
        return f'{key}={value!r} is of a format that can run something when read'
    return None
