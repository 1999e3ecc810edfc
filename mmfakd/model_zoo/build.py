# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models without their weights."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope

from .absent import check_installed
from .one_at_a_time import ONE_AT_A_TIME
from .registered_types import registered_types_only
from .type_names import type_name


def build_without_weights(
    cfg: Mapping[str, Any], scope: str | None, trusted: bool = False
) -> BaseModel:
    """Build a model from a config with random weights, without network.

    Args:
        cfg (Mapping): Config of the model. It is not changed.
        scope (str, optional): Registry scope, the config's ``default_scope``.
        trusted (bool): Whether the config is the user's own, so that a ``type`` may
            name whatever can be imported. Defaults to False.

    Returns:
        BaseModel: The model in evaluation mode.

    Raises:
        ModuleNotFoundError: If its library is not installed.
        ValueError: If it cannot be built, for example because it fetches another
            model from the network.
    """
    cfg = without_pretrained(cfg)
    what = f'a model of type {cfg.get("type")!r}'
    check_installed([cfg, dict(default_scope=scope)], what)
    try:
        types = nullcontext() if trusted else registered_types_only(models_only=True)
        with ONE_AT_A_TIME, DefaultScope.overwrite_default_scope(scope):
            with _no_network(), types:
                model = MODELS.build(cfg)
            # Some override `train` without a result.
            model.eval()
    except Exception as error:
        raise ValueError(
            f'a model of type {cfg.get("type")!r} cannot be built without weights and '
            f'network: {type(error).__name__}: {error}'
        ) from error
    return model


def without_pretrained(cfg: Any) -> Any:
    """Copy a config without what needs weights or several processes.

    Args:
        cfg (Any): A config, or any part of one.

    Returns:
        Any: The copy: ``Pretrained`` initialisers are gone, ``pretrained`` is off, and
        norms are not synchronised, which changes neither shapes nor names.
    """
    if isinstance(cfg, Mapping):
        copied = {}
        for key, value in cfg.items():
            if key == 'init_cfg':
                value = _without_pretrained_init(value)
            elif key == 'pretrained':
                value = False if isinstance(value, bool) else None
            elif key in ('teacher_ckpt', 'student_ckpt'):
                value = None
            elif key == 'type' and value in ('SyncBN', 'MMSyncBN'):
                value = 'BN'
            else:
                value = without_pretrained(value)
            copied[key] = value
        return type(cfg)(copied)  # type: ignore[call-arg]
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(without_pretrained(value) for value in cfg)
    return cfg


@contextmanager
def _no_network() -> Iterator[None]:
    """Let attempts to connect fail at once, not after a firewall's patience."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise OSError(f'it asks for a connection to {address}')

    connect = socket.socket.connect
    socket.socket.connect = refuse  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]


def _without_pretrained_init(init_cfg: Any) -> Any:
    if isinstance(init_cfg, Mapping):
        return None if type_name(init_cfg).startswith('Pretrained') else init_cfg
    return [cfg for cfg in init_cfg or () if _without_pretrained_init(cfg)] or None
