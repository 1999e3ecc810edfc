# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Builds the distiller of a config, and refuses one that can teach nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as ROOT_MODELS
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from mmfakd.models.losses.check_number import check_number

_EXPECTED = (
    "expected dict(type='mmfakd.ReviewDistiller', student_levels=[...], "
    'teacher_levels=[...], connector=dict(...)), or the config of another distiller of '
    'mmfakd or mmrazor'
)
# What losses of mmfakd, mmrazor and mmdet call their temperature.
_TEMPERATURES = ('tau', 'temperature', 'T')


def build_distiller(cfg: Any) -> ConfigurableDistiller:
    """Build a distiller and check the numbers of its losses.

    Args:
        cfg (dict): Its config.

    Returns:
        ConfigurableDistiller: The distiller. If all its losses weigh nothing, that is
        told in a warning.

    Raises:
        TypeError: If it is no config, or that of something else.
        ValueError: If the config has no type, a weight is negative or no finite
            number, or a temperature is not above zero.
    """
    if not isinstance(cfg, dict):
        raise TypeError(f'distiller: got {cfg!r}; {_EXPECTED}.')
    if 'type' not in cfg:
        has = f'a config with {sorted(cfg)} and no `type`' if cfg else 'an empty config'
        raise ValueError(f'distiller: got {has}; {_EXPECTED}.')
    distiller = ROOT_MODELS.build(cfg)
    if not hasattr(distiller, 'student_recorders'):
        raise TypeError(
            f'distiller: got type={cfg["type"]!r}, a {type(distiller).__name__} '
            f'without recorders; {_EXPECTED}.'
        )
    weights = list(_weights(distiller))
    if not any(weights):
        why = 'no loss' if not weights else 'only losses of weight 0'
        print_log(
            f'NOTHING IS DISTILLED: the distiller has {why}, so the student learns as '
            'without a teacher. Give `distill_losses` with `loss_forward_mappings`, or '
            'levels, and a `loss_weight` above 0.',
            logger='current',
            level=logging.WARNING,
        )
    return distiller


def _weights(distiller: ConfigurableDistiller) -> Iterator[float]:
    """Check the losses of a distiller and yield their weights."""
    outer = getattr(distiller, 'loss_weight', 1.0)
    largest = max(outer) if isinstance(outer, (list, tuple)) else outer
    for name, loss in distiller.distill_losses.items():
        of_level = name.startswith('loss_level')
        yield _weight(name, loss) * (largest if of_level else 1)
    level_loss = getattr(distiller, 'level_loss', None)
    if level_loss is not None:
        yield _weight('level_loss', level_loss) * largest


def _weight(name: str, loss: nn.Module) -> float:
    owner = f'{name}: {type(loss).__name__}'
    for module in loss.modules():
        for key in _TEMPERATURES:
            # A learned temperature is a tensor.
            given = getattr(module, key, None)
            if isinstance(given, (int, float, str)):
                check_number(owner, key, given, above_zero=True)
    weight: Any = getattr(loss, 'loss_weight', 1.0)
    # A learned weight is a tensor.
    if isinstance(weight, Tensor):
        return 1.0
    check_number(owner, 'loss_weight', weight)
    return weight
