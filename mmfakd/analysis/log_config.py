# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is read of the config beside a log, which anybody may have written."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mmfakd.engine.check_optimizer import is_whole

_DICTS = ('model', 'train_cfg', 'randomness', 'default_hooks', 'default_hooks.logger')
_LENGTHS = ('train_cfg.max_epochs', 'train_cfg.max_iters')
_INTERVAL = 'default_hooks.logger.interval'
_SEED = 'randomness.seed'


def check_log_config(config: Config) -> None:
    """Check the keys by which a log is read.

    Args:
        config (Config): The config beside it. What it lacks, or has as None, is fine.

    Raises:
        ValueError: If one is of another kind.
    """
    for keys, kind, good in (
        (_DICTS, 'a dict', lambda value: isinstance(value, dict)),
        ((*_LENGTHS, _INTERVAL), 'a whole number above 0', is_whole),
        (('custom_hooks',), 'a list', lambda value: isinstance(value, (list, tuple))),
        ((_SEED,), 'a whole number', lambda value: type(value) is int),
    ):
        for key in keys:
            # Dicts come first, so that what is within them can be looked up.
            value = _value(config, key)
            if value is not None and not good(value):
                raise ValueError(f'{key} is {value!r}; expected {kind}.')


def logger_of(config: Config) -> dict:
    """Give the arguments of the hook that has written a log.

    Args:
        config (Config): The config beside it, checked.

    Returns:
        dict: The arguments, none where it was left to its defaults.
    """
    return _value(config, 'default_hooks.logger') or {}


def _value(config: Config, key: str) -> Any:
    found: Any = config
    for part in key.split('.'):
        found = found.get(part) if isinstance(found, (dict, Config)) else None
    return found
