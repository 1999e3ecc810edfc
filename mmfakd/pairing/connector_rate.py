# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The learning rate of connectors under Adam and its relatives."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mmengine.config import Config

from mmfakd.model_zoo.type_names import short_name

# As measured on BCCD at a rate of 1e-3 (docs/en/results/bccd.md), and the rate that it
# makes there: a larger one has not been tried.
CONNECTOR_LR_MULT = 10
CONNECTOR_LR = 1e-2
# Their steps are as long as the rate, however large the gradient is.
_ADAPTIVE = re.compile('adam|adan|adabelief|adafactor|lamb|lion|sophia', re.IGNORECASE)
# They find their rate by themselves, and refuse groups with others.
_FREE = re.compile('dadapt|prodigy', re.IGNORECASE)


def connector_lr_mult(cfg: Config) -> float | None:
    """Choose by how much faster connectors are to learn than their student.

    Under Adam a parameter moves by about the learning rate a step, however large its
    gradient is, and at a student's rate the last norm of a connector does not come to
    the teacher's features in a short training. Under SGD it does.

    Args:
        cfg (Config): The student's config.

    Returns:
        float | None: The factor, at most what makes a rate of 0.01; None where the
        optimizer needs none, the student's own rate is as high, or its config has
        settings of its own for the key ``distiller``.
    """
    paramwise = (cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
    if not is_adaptive(cfg) or 'distiller' in (paramwise.get('custom_keys') or {}):
        return None
    rate = cfg.optim_wrapper.optimizer.get('lr') or 1e-3
    factor = min(CONNECTOR_LR_MULT, CONNECTOR_LR / rate)
    return round(factor, 2) if factor > 1 else None


def is_adaptive(cfg: Config) -> bool:
    """Tell whether a config's optimizer is one of Adam's relatives, whose rate is set.

    Args:
        cfg (Config): The student's config.

    Returns:
        bool: True for Adam, AdamW, Lamb, Lion and the like.
    """
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if not isinstance(optimizer, Mapping):
        return False
    name = short_name(optimizer.get('type'))
    return bool(_ADAPTIVE.search(name) and not _FREE.search(name))
