# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Where a checkpoint comes from, in plain values, and what differs between two runs."""

from __future__ import annotations

import os.path as osp
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmfakd.checkpoints.state_dict import COUNTER
from mmfakd.compat.families import FAMILIES
from mmfakd.compat.versions import installed_versions
from mmfakd.messages import aligned
from mmfakd.version import __version__

from .unwrap import optim_wrappers

# What a model's config has that is no part of the distillation, or that a checkpoint
# replaces: the student, and where weights come from.
_NO_DISTILLATION = (
    'type',
    'architecture',
    'student_ckpt',
    'teacher_ckpt',
    'data_preprocessor',
)
# What has no effect on what a student learns: where its first weights and its images
# lie, and how these are loaded. The batch is described by itself.
_PLACES = ('_scope_', 'init_cfg', 'data_root', 'backend_args', 'file_client_args')
_LOADING = (
    'batch_size',
    'num_workers',
    'num_batch_per_epoch',
    'multiprocessing_context',
    'persistent_workers',
    'pin_memory',
    'pin_memory_device',
    'prefetch_factor',
    'timeout',
)
# Whether the student learns the same from the same teacher.
_DECISIVE = re.compile(
    r'model\.(distiller|teacher_preprocessor|calculate_student_loss|student_trainable)'
    r'(\.|$)|teacher\.(sha256|input)$|optimizer\.(\w+\.)?type$'
)
# What CheckFiniteHook advises to change.
_ADJUSTABLE = re.compile(r'\.(loss_weight|warmup)(\.|$)')
# Of optimizers the kind; LearningRateHook tells their settings, which are in force.
_UNTOLD = re.compile(r'teacher\.path$|optimizer\.(?!(\w+\.)?type$)')
# Where the families differ, the names of distributions say which one it was.
_VERSIONS = (
    'torch',
    'mmrazor',
    *(library.name for family in FAMILIES for library in family.requirements),
    *(name for family in FAMILIES for name in family.others),
)


class Difference(NamedTuple):
    """A setting that is another one than in the checkpoint.

    Args:
        key (str): Its name.
        then (str): What the checkpoint says.
        now (str): What the present run says.
        decisive (bool): Whether it is another training.
    """

    key: str
    then: str
    now: str
    decisive: bool


def describe_config(cfg: Config) -> dict[str, Any]:
    """Describe what a config trains.

    Args:
        cfg (Config): The whole config.

    Returns:
        dict: ``model``, the distillation part of the model, where it has a distiller;
        ``optimizer``; of a config with a model what else a student learns by.
    """
    model, wrapper = cfg.get('model'), cfg.get('optim_wrapper')
    # A runner that was built from objects has an empty config.
    described = _describe_learning(model, cfg) if isinstance(model, dict) else {}
    if isinstance(model, dict) and 'distiller' in model:
        parts = {k: v for k, v in model.items() if k not in _NO_DISTILLATION}
        described['model'] = plain(parts)
    if isinstance(wrapper, dict):
        wrapper = {k: v for k, v in wrapper.items() if isinstance(v, dict)}
        optimizers = {k: v.get('optimizer') for k, v in wrapper.items()}
        described['optimizer'] = plain(wrapper.get('optimizer', optimizers))
    return described


def _describe_learning(model: dict, cfg: Config) -> dict[str, Any]:
    """Describe the student, its images, and what is done to gradients and weights.

    Returns:
        dict: ``student``; ``data`` where that is a config; ``preprocessor``,
        ``clip_grad`` and the custom ``hooks`` by their types.
    """
    data = cfg.get('train_dataloader')
    rest = {k: v for k, v in model.items() if k != 'data_preprocessor'}
    described = dict(
        student=model.get('architecture', rest),
        # A model's own goes before that of the config.
        preprocessor=model.get('data_preprocessor')
        or cfg.get('data_preprocessor')
        or {},
        clip_grad=_clips(cfg.get('optim_wrapper')),
        hooks=_custom_hooks(cfg),
    )
    if isinstance(data, dict):
        described['data'] = {k: v for k, v in data.items() if k not in _LOADING}
    return {key: _without_places(plain(part)) for key, part in described.items()}


def _clips(wrapper: Any) -> dict[str, Any]:
    """``clip_grad`` of a wrapper, or that of each of several."""
    if not isinstance(wrapper, dict):
        return {}
    if 'optimizer' in wrapper:
        return wrapper.get('clip_grad') or {}
    parts = {k: v for k, v in wrapper.items() if isinstance(v, dict)}
    return {name: part.get('clip_grad') or {} for name, part in parts.items()}


def _custom_hooks(cfg: Config) -> dict[str, Any]:
    """Custom hooks that others have written; ours say themselves what they change."""
    hooks = [h for h in cfg.get('custom_hooks') or () if isinstance(h, dict)]
    found: dict[str, list] = {}
    for hook in hooks:
        kind = hook.get('type')
        if not str(getattr(kind, '__module__', kind)).startswith('mmfakd.'):
            found.setdefault(str(plain(kind)).rpartition('.')[2], []).append(hook)
    # Several of one type are told by their numbers.
    return {name: same if len(same) > 1 else same[0] for name, same in found.items()}


def _without_places(value: Any) -> Any:
    """Leave out of plain values where things lie."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in _PLACES}
        return {key: _without_places(part) for key, part in kept.items()}
    if isinstance(value, list):
        return [_without_places(part) for part in value]
    # A file keeps its name where its folder is moved.
    if isinstance(value, str) and (osp.isabs(value) or '://' in value):
        return osp.basename(value.rstrip('/'))
    return value


def describe_run(runner: Runner) -> dict[str, Any]:
    """Describe a training that is built.

    Args:
        runner (Runner): The runner.

    Returns:
        dict: What :func:`describe_config` says, and ``processes``, ``batch`` of each,
        ``accumulation``, ``total_batch``, ``precision`` of the networks and
        ``versions``.
    """
    loader, wrapper = runner.train_dataloader, optim_wrappers(runner.optim_wrapper)[0]
    batch = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    accumulation = getattr(wrapper, '_accumulative_counts', 1)
    versions = installed_versions()
    return dict(
        processes=runner.world_size,
        batch=batch,
        accumulation=accumulation,
        total_batch=batch * runner.world_size * accumulation,
        precision=_precision(wrapper),
        versions={
            'mmfakd': __version__,
            **{name: versions[name] for name in _VERSIONS if name in versions},
        },
        **describe_config(runner.cfg),
    )


def _precision(wrapper: OptimWrapper) -> str:
    # MMEngine's wrapper leaves None to PyTorch, for which that is float16.
    dtype = getattr(wrapper, 'cast_dtype', torch.float32) or torch.float16
    return str(dtype).rpartition('.')[2]


def plain(value: Any) -> Any:
    """Turn a part of a config into values that any reader of checkpoints accepts.

    Args:
        value (Any): The part.

    Returns:
        Any: Dicts, lists, text, numbers; classes and modules by their names.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, (set, frozenset)):
        # Each process has its own order.
        return sorted(map(str, value))
    # Any name is one of what a config in pure Python imports, but is not built yet.
    name = getattr(value, '__name__', None)
    # The same object lies elsewhere in another process.
    return name if isinstance(name, str) else re.sub(' at 0x[0-9a-f]+', '', str(value))


def hash_weights(model: nn.Module) -> str:
    """Compute the SHA-256 of names, types, shapes and values of a model's tensors.

    Args:
        model (nn.Module): The model. Counters of norm layers are left out, which some
            checkpoints have and others have not.

    Returns:
        str: The hash in hexadecimal digits.
    """
    digest = sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor) and not name.endswith(COUNTER):
            digest.update(f'{name} {tensor.dtype} {list(tensor.shape)}'.encode())
            data = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def compare(then: Mapping, now: Mapping) -> list[Difference]:
    """Compare two descriptions of runs, as far as the first says something.

    One that says something and has no ``model`` is that of a plain training.

    Args:
        then (Mapping): That in a checkpoint.
        now (Mapping): That of the present run.

    Returns:
        list[Difference]: What differs.
    """
    known = then.keys() & now.keys()
    before, after = (
        {
            key: value
            for key, value in _leaves({key: part[key] for key in known})
            if not _UNTOLD.match(key)
        }
        for part in (then, now)
    )
    hashes = before.get('teacher.sha256'), after.get('teacher.sha256')
    if None in hashes:
        # Nobody knows: a random teacher, or a checkpoint that does not say.
        before.pop('teacher.sha256', None)
        after.pop('teacher.sha256', None)
    if not {'teacher.input'} <= before.keys() & after.keys():
        # That of an older version, or a teacher that has none.
        before.pop('teacher.input', None)
        after.pop('teacher.input', None)
    other_teacher = None in hashes or hashes[0] != hashes[1]
    differences = []
    kinds = ['a distillation' if 'model' in part else 'plain' for part in (then, now)]
    if then and kinds[0] != kinds[1]:
        differences.append(Difference('model', kinds[0], kinds[1], True))
    for key in dict.fromkeys([*before, *after]):
        if key in before and key in after and _same(before[key], after[key]):
            continue
        decisive = bool(_DECISIVE.match(key)) and not _ADJUSTABLE.search(key)
        # The same weights spelt in another way are the same teacher.
        decisive |= other_teacher and key.startswith('model.teacher.')
        shown = [_shown(key, part) for part in (before, after)]
        differences.append(Difference(key, shown[0], shown[1], decisive))
    return differences


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same, or names of a class with and without modules.

    Configs in pure Python have a class, whose modules their text names.
    """
    if one == other:
        return True
    names = sorted(map(str, (one, other)), key=len)
    return bool(re.fullmatch(rf'\w+\.[\w.]+\.{re.escape(names[0])}', names[1]))


def table(differences: list[Difference]) -> str:
    """Write differences as a table.

    Args:
        differences (list[Difference]): What :func:`compare` found.

    Returns:
        str: A line for the heading and for each of them.
    """
    rows = [('setting', 'checkpoint', 'now', '')]
    for key, then, now, decisive in differences:
        rows.append((key, then, now, 'another training' if decisive else ''))
    return aligned(rows)


def misfits(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Find what MMEngine's loader would only print, and leave random.

    Args:
        model (nn.Module): The model, which may be filled on the way.
        state_dict (Mapping[str, Tensor]): Weights of a checkpoint.

    Returns:
        dict[str, list[str]]: Kind of misfit -> keys. Empty if all fits.
    """
    given = OrderedDict((re.sub(r'^module\.', '', k), v) for k, v in state_dict.items())
    given._metadata = getattr(state_dict, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    own = model.state_dict()

    def shape(value: Any) -> list[int]:
        return list(getattr(value, 'shape', []))

    missing = [k for k in own if k not in given and not k.endswith(COUNTER)]
    unexpected = [k for k in given if k not in own]
    shapes = [
        f'{k} {shape(given[k])} in the checkpoint, {shape(own[k])} in the model'
        for k in given
        if k in own and shape(given[k]) != shape(own[k])
    ]
    if missing or unexpected or shapes:
        try:
            # The model has the last word: it may know keys and sizes of older versions.
            left = model.load_state_dict(given, strict=False)
        except RuntimeError:
            pass
        else:
            # Some take tables that they compute from no checkpoint.
            missing = [
                key
                for key in left.missing_keys
                if not key.endswith(COUNTER) and key not in given
            ]
            unexpected, shapes = left.unexpected_keys, []
    kinds = {
        'not in the checkpoint': missing,
        'not in the model': unexpected,
        'of another shape': shapes,
    }
    return {kind: keys for kind, keys in kinds.items() if keys}


def _leaves(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Dotted names and values; a list of plain values is one value."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f'{name}.{key}' if name else str(key))
    elif isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        for index, part in enumerate(value):
            yield from _leaves(part, f'{name}.{index}')
    else:
        yield name, value


def _shown(key: str, values: Mapping[str, Any]) -> str:
    if key not in values:
        return '-'
    text = str(values[key])
    if key.endswith('sha256'):
        return text[:12]
    # Paths are told by their ends.
    cut = len(text) > 100 and not isinstance(values[key], str)
    return f'{text[:80]} ... {text[-15:]}' if cut else text
