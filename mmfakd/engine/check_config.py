# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Mistakes in options and configs that can be told before anything is built."""

from __future__ import annotations

import logging
import os
import os.path as osp
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from inspect import signature
from itertools import chain
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmfakd.messages import near_names, quoted
from mmfakd.model_zoo.absent import check_installed
from mmfakd.ops.chooser import mode_of_environment

from .check_loaders import check_loaders
from .check_optimizer import check_optimizer, is_whole

# Keys at the top level of a config that `Runner` does not take as arguments.
_BESIDE_RUNNER = ('runner_type', 'auto_scale_lr', 'custom_imports', 'compile')
_LARGEST_SEED = 2**32 - 1


def check_training(cfg: Config) -> None:
    """Check what a training cannot do without, and what the environment says of it.

    Args:
        cfg (Config): The whole config.

    Raises:
        KeyError: If there is no such optimizer or wrapper of it; near names are listed.
        ValueError: If there is no model, loop, loader or optimizer, weights are no name
            of a file, the seed is none, the loop has no length, the loop or a loader
            has an argument that does not exist, a loader a number that cannot be, the
            optimizer could take no step, or ``MMFAKD_WAYS`` is no mode.
        ModuleNotFoundError: If a library that it names is not installed.
    """
    check_installed(cfg, cfg.filename or 'the config')
    check_model(cfg)
    check_sources(cfg)
    advice = 'which a training needs. Does it lack its `_base_`, as of the schedule?'
    check_parts(cfg, ('train_dataloader', 'train_cfg', 'optim_wrapper'), advice)
    _check_keys(cfg)
    _check_units(cfg.get('train_cfg'))
    _check_lengths(cfg.get('train_cfg'))
    check_loaders(cfg, 'train_dataloader', 'val_dataloader')
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and not (isinstance(seed, int) and 0 <= seed <= _LARGEST_SEED):
        raise ValueError(
            f'The seed is {seed!r}; expected a whole number from 0 to {_LARGEST_SEED} '
            '(--seed, or `randomness=dict(seed=...)`).'
        )
    check_optimizer(cfg.get('optim_wrapper'), cfg.get('default_scope'))
    # Else it is told in the first step, by whatever layer computes first.
    mode_of_environment()


def tell_starts(cfg: Config) -> None:
    """Warn of a student that gets two sets of weights, of which the last one stays.

    Args:
        cfg (Config): The whole config, of a training that is not resumed.
    """
    load_from, student = cfg.get('load_from'), cfg.model.get('student_ckpt')
    if load_from and student and not cfg.get('resume'):
        print_log(
            f'load_from={load_from!r} is loaded after student_ckpt={student!r} '
            '(--student-ckpt): what it has for the student goes over that. Leave out '
            'one of the two (--cfg-options load_from=None).',
            logger='current',
            level=logging.WARNING,
        )


def check_model(cfg: Config) -> None:
    """Check that a config has a model.

    Args:
        cfg (Config): The whole config.

    Raises:
        ValueError: If there is none, or it has no type.
    """
    model = cfg.get('model')
    if not isinstance(model, dict) or 'type' not in model:
        got = (
            f'one with only {sorted(model)}' if isinstance(model, dict) else repr(model)
        )
        raise ValueError(
            f'{cfg.filename or "The config"}: the model is {got}; expected '
            "dict(type='mmfakd.FeatureDistill', ...) or that of another model. Does "
            'the config lack its `_base_`?'
        )


def check_parts(
    cfg: Config, needed: Iterable[str], then: str, who: str | None = None
) -> None:
    """Check that a config has what a loop of MMEngine cannot do without.

    Args:
        cfg (Config): The whole config.
        needed (Iterable[str]): Keys of the parts.
        then (str): What needs them, and what to do, for the message.
        who (str, optional): What the message calls the config. Defaults to its file.

    Raises:
        ValueError: If one is missing or None.
    """
    missing = [key for key in needed if cfg.get(key) is None]
    if missing:
        who = who or cfg.filename or 'The config'
        raise ValueError(f'{who} has no {" and no ".join(missing)}, {then}')


def _check_keys(cfg: Config) -> None:
    """Check what MMEngine builds without a registry, which would list near names."""
    loops = (EpochBasedTrainLoop, IterBasedTrainLoop)
    loop = {'by_epoch', *chain(*(signature(kind).parameters for kind in loops))}
    beside = ('num_batch_per_epoch', 'disable_subprocess_warning')
    loader = {*signature(DataLoader).parameters, *beside}
    for name, known in dict(train_cfg=loop, train_dataloader=loader).items():
        given = cfg.get(name)
        if not isinstance(given, dict) or 'type' in given:
            continue
        for key in given.keys() - known:
            raise ValueError(
                f'{name} got {key}={given[key]!r}, which it does not take. Near names: '
                f'{quoted(near_names(key, known))}.'
            )


def _check_units(loop: Any) -> None:
    """Check that a loop has no length in the units of the other one."""
    if not isinstance(loop, dict) or 'type' in loop or 'by_epoch' not in loop:
        return
    units = ('epochs', 'iterations')
    unit, other = units if loop['by_epoch'] else units[::-1]
    length = dict(epochs='max_epochs', iterations='max_iters')[other]
    if length in loop:
        raise ValueError(
            f'train_cfg counts {unit} (by_epoch={loop["by_epoch"]}) and has {length}='
            f"{loop[length]!r}, which may come from its `_base_`. Replace the base's: "
            'train_cfg=dict(_delete_=True, ...), or `train_cfg._delete_=True` among '
            'the --cfg-options.'
        )


def _check_lengths(loop: Any) -> None:
    """Check what a loop counts by, which MMEngine divides by after the first epoch."""
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        value = loop.get(key, 1) if isinstance(loop, dict) else 1
        if value is not None and not is_whole(value):
            raise ValueError(
                f'train_cfg has {key}={value!r}; expected a whole number above 0.'
            )


def check_weights(**weights: Any) -> None:
    """Check the options that name files of weights.

    Args:
        **weights (str): Name of the argument -> what was given.

    Raises:
        ValueError: For an empty name, or that of a folder.
    """
    for name, value in weights.items():
        option = f'--{name.replace("_", "-")}'
        if isinstance(value, str) and not value.strip():
            raise ValueError(
                f'{option} is empty; give a path, a URL or a name of the model zoos, '
                'or leave it out. Is a variable of the shell not set?'
            )
        if isinstance(value, str) and osp.isdir(osp.expanduser(value)):
            raise ValueError(
                f'{option} {value}: it is a folder; give a file in it, such as '
                f'{osp.join(value, "epoch_12.pth")}.'
            )


def check_sources(cfg: Config) -> None:
    """Check what a config itself says of files of weights.

    Args:
        cfg (Config): The whole config.

    Raises:
        ValueError: For what is neither a text nor None.
    """
    model = cfg.get('model')
    found = {'load_from': cfg.get('load_from')}
    for key in ('teacher_ckpt', 'student_ckpt'):
        found[f'model.{key}'] = model.get(key) if isinstance(model, dict) else None
    for key, value in found.items():
        if value is None or isinstance(value, (str, os.PathLike)):
            continue
        text = (
            f'{key} is {value!r}; expected a path, a URL or a name of the model zoos.'
        )
        if isinstance(value, (list, tuple)):
            path = ', '.join(map(str, value))
            text += (
                ' Among the --cfg-options a comma divides a list; a path that has one '
                f'stands in quotes within those of the shell: \'{key}="{path}"\'.'
            )
        raise ValueError(text)


def warn_unknown_keys(cfg: Config, keys: Iterable[str]) -> None:
    """Warn of overrides that would add something that nothing reads.

    Args:
        cfg (Config): The config, before they are merged.
        keys (Iterable[str]): Keys such as ``'optim_wrapper.optimizer.lr'``.
    """
    known = {*signature(Runner.__init__).parameters, *_BESIDE_RUNNER} - {'self'}
    for key in keys:
        top, _, _ = key.partition('.')
        where, part, there = _first_missing(cfg, key)
        if part is None:
            continue
        options = {*there, *(() if where else known)}
        near = [f'{where}{name}' for name in near_names(part, options, 3)]
        new = not where and top not in known
        if not new and not get_close_matches(part, there, cutoff=0.85):
            # In general an argument that the config leaves out.
            continue
        last = key.rpartition('.')[2]
        near += [path for path in _paths(cfg) if path.rpartition('.')[2] == last][:5]
        print_log(
            f'--cfg-options {key}: the config has no {where}{part}, and the value may '
            f'have no effect. Near keys: {quoted(dict.fromkeys(near))}.',
            logger='current',
            level=logging.WARNING,
        )


def _first_missing(cfg: Any, key: str) -> tuple[str, str | None, list[str]]:
    """Where a path leaves a config: what is before, the missing part, what is there."""
    where = ''
    for part in key.split('.'):
        if isinstance(cfg, (list, tuple)) and part.isdigit() and int(part) < len(cfg):
            cfg = cfg[int(part)]
        elif not isinstance(cfg, Mapping) and not isinstance(cfg, Config):
            return where, None, []
        elif part not in cfg:
            return where, part, list(cfg.keys())
        else:
            cfg = cfg[part]
        where += f'{part}.'
    return where, None, []


def _paths(cfg: Any, start: str = '') -> Iterator[str]:
    for key, value in cfg.items():
        yield f'{start}{key}'
        if isinstance(value, Mapping):
            yield from _paths(value, f'{start}{key}.')
