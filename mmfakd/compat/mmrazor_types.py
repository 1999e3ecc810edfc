# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Types of mmrazor's recorders and deliveries, with or without its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from inspect import signature
from typing import Any

from mmfakd.messages import quoted

from .import_hook import when_imported

_PREFIX = 'mmrazor.'
_MODULES = 'mmrazor.models.task_modules'
_DELIVERIES = f'{_MODULES}.delivery.delivery_manager'
_RECORDERS = f'{_MODULES}.recorder.recorder_manager'


def allow_mmrazor_types() -> None:
    """Let recorders and deliveries be named as all that is mmrazor's, and in short.

    mmrazor 1.0.0, its last release, compares the type of a delivery with a list of
    short names, so ``mmrazor.FunctionOutputs`` fails an assertion without a text; and
    it looks for short names in the default scope alone, where a config of mmpretrain
    or mmdet has none of mmrazor's. Both are in
    https://github.com/open-mmlab/mmrazor/blob/main/mmrazor/models/task_modules/delivery/delivery_manager.py
    With this shim both spellings mean mmrazor's class under any scope, unless that
    scope has a class of the short name. Another delivery is refused in words.
    """
    when_imported(_DELIVERIES, _mend_deliveries)
    when_imported(_RECORDERS, _mend_recorders)


def _mend_deliveries() -> None:
    _mend(sys.modules[_DELIVERIES].DistillDeliveryManager, _delivery)


def _mend_recorders() -> None:
    _mend(sys.modules[_RECORDERS].RecorderManager, _recorder)


def _mend(manager: Any, spell: Callable[[str, Any], Any]) -> None:
    """Let a manager have its configs as mmrazor spells them."""
    init = manager.__init__
    if hasattr(init, '__wrapped__'):
        return

    @wraps(init)
    def mended(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature(init).bind(self, *args, **kwargs)
        for argument, configs in list(given.arguments.items())[1:]:
            if configs:
                spelled = {name: spell(name, cfg) for name, cfg in configs.items()}
                given.arguments[argument] = spelled
        init(*given.args, **given.kwargs)

    manager.__init__ = mended


def _delivery(name: str, cfg: Any) -> dict:
    """Spell the config of a delivery in short, and with its scope."""
    supported = sys.modules[_DELIVERIES].SUPPORT_DELIVERIES
    kind = cfg.get('type') if isinstance(cfg, Mapping) else None
    short = kind.removeprefix(_PREFIX) if isinstance(kind, str) else None
    if short not in supported:
        given = repr(cfg) if kind is None else f'type={kind!r}'
        raise ValueError(
            f'distill_deliveries, {name!r}: got {given}; expected a config with one of '
            f'the types {quoted(_PREFIX + known for known in supported)}.'
        )
    if kind == short and _is_known(f'{short}Delivery', cfg):
        return dict(cfg)
    return dict(cfg, type=short, _scope_='mmrazor')


def _recorder(name: str, cfg: Any) -> Any:
    """Spell the config of a recorder with mmrazor's name before its type."""
    kind = cfg.get('type') if isinstance(cfg, Mapping) else None
    if not isinstance(kind, str) or '.' in kind or _is_known(f'{kind}Recorder', cfg):
        return cfg
    if f'{kind}Recorder' not in _registry().module_dict:
        return cfg
    return dict(cfg, type=f'{_PREFIX}{kind}')


def _is_known(kind: str, cfg: Mapping) -> bool:
    """Whether the scope of a config has a class, without help."""
    with _registry().switch_scope_and_registry(cfg.get('_scope_')) as found:
        return found.get(kind) is not None


def _registry() -> Any:
    return import_module('mmrazor.registry').TASK_UTILS
