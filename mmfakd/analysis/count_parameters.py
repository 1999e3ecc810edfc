# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How many parameters a training has."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.resolve import resolve_model_cfg


def count_parameters(config: Config, trusted: bool = False) -> tuple[int, int]:
    """Count parameters by building the model, without weights and without data.

    Args:
        config (Config): The whole config of a training.
        trusted (bool): See :func:`~mmfakd.model_zoo.build.build_without_weights`.

    Returns:
        tuple[int, int]: Parameters of the model that stays (the student's), and
        parameters that only training has (connectors and the like; no teacher's).

    Raises:
        ValueError: If the model cannot be built without weights and network.
    """
    if config.get('custom_imports'):
        import_modules_from_strings(**config.custom_imports)
    cfg, _ = resolve_model_cfg(config.model, config.get('data_preprocessor'))
    scope = config.get('default_scope') or 'mmengine'
    model = build_without_weights(cfg, scope, trusted)
    kept = set(getattr(model, 'architecture', model).parameters())
    # mmrazor's algorithms have the teacher among their modules.
    teacher = getattr(model, 'teacher', None)
    teachers = set() if teacher is None else set(teacher.parameters())
    added = set(model.parameters()) - kept - teachers
    return sum(p.numel() for p in kept), sum(p.numel() for p in added)
