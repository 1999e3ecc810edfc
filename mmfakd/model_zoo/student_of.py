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


def is_distillation(cfg: ConfigDict) -> bool:
    """Tell whether a model trains another one, its student.

    Args:
        cfg (ConfigDict): A resolved model config.

    Returns:
        bool: Whether it does.
    """
    if not isinstance(cfg.get('architecture'), dict):
        return False
    kind = class_of(cfg)
    return inspect.isclass(kind) and issubclass(kind, _DISTILLATIONS)


def student_of(cfg: ConfigDict, name: str = 'teacher') -> ConfigDict:
    """Take the student of a distillation, the network that it has trained.

    A teacher assistant, and a student that teaches the next one, are given by the
    config that they were trained with.

    Args:
        cfg (ConfigDict): A resolved model config.
        name (str): What it is of, for the message. Defaults to ``'teacher'``.

    Returns:
        ConfigDict: That of the student, with the data preprocessor that the
        distillation gives it (:func:`suit_classifier`); ``cfg`` itself if it is no
        distillation.

    Raises:
        ValueError: If the config says something of a model that has no say in a
            distillation.
    """
    if not is_distillation(cfg):
        return cfg
    _refuse_lost(cfg, name)
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
    return student_of(student, name)


def _refuse_lost(cfg: ConfigDict, name: str) -> None:
    """Refuse overrides that were meant for the student."""
    known = {'type', '_scope_'}
    for one in class_of(cfg).__mro__:
        if '__init__' in vars(one):
            known.update(inspect.signature(vars(one)['__init__']).parameters)
    lost = sorted(set(cfg) - known)
    if lost:
        raise ValueError(
            f'{name}: it is a distillation ({cfg.type}), of which the student is '
            f'taken, and {quoted(lost)} is no argument of it. What is meant for the '
            f'student goes into `architecture`: architecture=dict({lost[0]}=...).'
        )
