# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models of a config that are named by files."""

from __future__ import annotations

import sys

from mmengine.config import Config

from .resolve import (
    TEACHER_IMPORTS,
    imported,
    innermost,
    is_file,
    load_model_config,
    model_files,
    resolve_model_cfg,
)
from .student_of import student_of


def inline_models(cfg: Config) -> None:
    """Put student and teacher into a config that names files for them.

    Its checkpoints and logs then say what the models were, whatever becomes of the
    files, and nobody who reads them runs one. What the files import for their models
    is imported by the config; ``teacher_imports`` names what the teacher alone needs.

    Args:
        cfg (Config): Of a training, changed in place.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no model.
    """
    outer = cfg.model.get('data_preprocessor', cfg.get('data_preprocessor'))
    for role, preprocessor in (('architecture', outer), ('teacher', None)):
        model = cfg.model.get(role)
        named = innermost(model)
        path = named.get('cfg_path') if isinstance(named, dict) else None
        if isinstance(path, str) and is_file(path) and not named.get('pretrained'):
            cfg.model[role], _ = resolve_model_cfg(model, preprocessor)
            added = _import_too(cfg, load_model_config(path, False))
            if role == 'teacher' and added:
                cfg[TEACHER_IMPORTS] = added
    _inline_student(cfg)


def _inline_student(cfg: Config) -> None:
    """Put the student of a distillation into the place of a teacher that names files.

    Those of the distillation's own teacher are of no concern, and may be gone.
    """
    teacher = cfg.model.get('teacher')
    inline = isinstance(teacher, dict) and 'cfg_path' not in teacher
    if not inline or not model_files(teacher):
        return
    cfg.model.teacher = student_of(teacher)
    path = (teacher.get('architecture') or {}).get('cfg_path')
    if cfg.model.teacher is not teacher and path and is_file(path):
        added = _import_too(cfg, load_model_config(path, False))
        if added:
            cfg[TEACHER_IMPORTS] = [*cfg.get(TEACHER_IMPORTS, ()), *added]


def _import_too(cfg: Config, other: Config) -> list[str]:
    """Let a config import what another does; returns what is new to it."""
    own = cfg.get('custom_imports') or {}
    names = imported(own)
    # What was allowed to fail, and failed, the model does without.
    added = [
        name
        for name in imported(other.get('custom_imports'))
        if name in sys.modules and name not in names
    ]
    if added:
        own.setdefault('allow_failed_imports', False)
        cfg.custom_imports = dict(own, imports=names + added)
    return added
