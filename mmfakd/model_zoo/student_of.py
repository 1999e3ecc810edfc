# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The student of a distillation, that teaches in its turn."""

from __future__ import annotations

import inspect

from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmrazor.models.algorithms import (
    DataFreeDistillation,
    SelfDistill,
    SingleTeacherDistill,
)

from mmfakd.messages import quoted

from .classifier_preprocessor import class_of, suit_classifier
from .resolve import resolve_model_cfg

_DISTILLATIONS = (DataFreeDistillation, SelfDistill, SingleTeacherDistill)


def student_of(cfg: ConfigDict) -> ConfigDict:
    """Take the student of a distillation, the network that it has trained.

    A teacher assistant, and a student that teaches the next one, are given by the
    config that they were trained with.

    Args:
        cfg (ConfigDict): A resolved model config.

    Returns:
        ConfigDict: That of the student, with the data preprocessor that the
        distillation gives it (:func:`suit_classifier`); ``cfg`` itself if it is no
        distillation.

    Raises:
        ValueError: If the config says something of a model that has no say in a
            distillation.
    """
    if not isinstance(cfg.get('architecture'), dict):
        return cfg
    kind = class_of(cfg)
    if not (inspect.isclass(kind) and issubclass(kind, _DISTILLATIONS)):
        return cfg
    _refuse_lost(cfg, kind)
    # Where its student begins (`pretrained=True`) is not what it has become.
    student, _ = resolve_model_cfg(cfg.architecture, cfg.get('data_preprocessor'))
    if '_scope_' in cfg:
        student.setdefault('_scope_', cfg['_scope_'])
    suit_classifier(student)
    print_log(
        f'The teacher is the student ({student.get("type")}) of a distillation, '
        f'{cfg.type}. Its weights may come from either checkpoint: that of the '
        'distillation, or the student file.',
        logger='current',
    )
    # A student that learned from two distillations at once lies deeper.
    return student_of(student)


def _refuse_lost(cfg: ConfigDict, kind: type) -> None:
    """Refuse overrides that were meant for the student."""
    known = {'type', '_scope_'}
    for one in kind.__mro__:
        if '__init__' in vars(one):
            known.update(inspect.signature(vars(one)['__init__']).parameters)
    lost = sorted(set(cfg) - known)
    if lost:
        raise ValueError(
            f'teacher: it is a distillation ({cfg.type}), of which the student '
            f'teaches, and {quoted(lost)} is no argument of it. What is meant for the '
            f'student goes into `architecture`: teacher=dict(cfg_path=..., '
            f'architecture=dict({lost[0]}=...)).'
        )
