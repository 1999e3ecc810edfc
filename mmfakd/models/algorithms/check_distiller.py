# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Builds the distiller of a config, and refuses one that can teach nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as ROOT_MODELS
from mmrazor.models import losses as razor
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from mmfakd.models.distillers import BalancedWeights
from mmfakd.models.distillers.any_distiller import is_level
from mmfakd.models.distillers.full_precision import compute_all_in_full
from mmfakd.models.losses.check_number import check_number
from mmfakd.models.losses.loss_chain import loss_chain

from .check_unused import check_unused
from .first_step import NOTHING_DISTILLED

_EXPECTED = (
    "expected dict(type='mmfakd.ReviewDistiller', student_levels=[...], "
    'teacher_levels=[...], connector=dict(...)), or the config of another distiller of '
    'mmfakd or mmrazor'
)
# What losses of mmfakd, mmrazor and mmdet call their temperature.
_TEMPERATURES = ('tau', 'temperature', 'T')
# What mmrazor's losses of several terms call the weights of these.
_TERMS: dict[type[nn.Module], Sequence[str]] = {
    razor.DKDLoss: ('alpha', 'beta'),
    razor.DISTLoss: ('inter_loss_weight', 'intra_loss_weight'),
    razor.FBKDLoss: (
        *('mask_l2_weight', 'channel_weight', 'spatial_weight'),
        'nonloacl_weight',
    ),
    razor.MGDLoss: ('alpha_mgd',),
}


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
            number, a temperature is not above zero, or a loss is never computed.
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
    check_unused(distiller)
    weights = list(_weights(distiller))
    if not any(weights):
        why = 'no loss' if not weights else 'only losses of weight 0'
        print_log(
            f'{NOTHING_DISTILLED}: the distiller has {why}, so the student learns as '
            'without a teacher. Give `distill_losses` with `loss_forward_mappings`, or '
            'levels, and a `loss_weight` above 0.',
            logger='current',
            level=logging.WARNING,
        )
    compute_all_in_full(distiller)
    return distiller


def freeze_student(student: nn.Module, distiller: ConfigurableDistiller) -> None:
    """Freeze a student that is not to learn, for its connectors to be trained alone.

    Frozen, its parameters are none that a parallel wrapper waits for.

    Args:
        student (nn.Module): The student, changed in place.
        distiller (ConfigurableDistiller): The distiller.

    Raises:
        ValueError: If the distiller has nothing that could learn.
    """
    if not any(p.requires_grad for p in distiller.parameters()):
        raise ValueError(
            'student_trainable=False trains the connectors alone, but the distiller '
            f'({type(distiller).__name__}) has no parameters: nothing can learn. Give '
            'it connectors, or leave out `student_trainable`.'
        )
    student.requires_grad_(False)


def check_balance(
    distiller: ConfigurableDistiller, student_loss: bool, student_trainable: bool
) -> None:
    """Check that there is a gradient of the student's own to balance levels against.

    Args:
        distiller (ConfigurableDistiller): The distiller.
        student_loss (bool): Whether the student's own loss counts.
        student_trainable (bool): Whether the student learns.

    Raises:
        ValueError: If weights are to be found by measurement, and there is none.
    """
    balanced = isinstance(getattr(distiller, 'loss_weight', None), BalancedWeights)
    if balanced and not (student_loss and student_trainable):
        which = 'student_trainable' if student_loss else 'calculate_student_loss'
        raise ValueError(
            f"loss_weight of type 'balance' with {which}=False: the gradients of "
            "levels are balanced against that of the student's own loss, which has "
            'none here. '
            'Give weights as numbers: loss_weight=1.0, or one for each level.'
        )


def _weights(distiller: ConfigurableDistiller) -> Iterator[float]:
    """Check the losses of a distiller and yield their weights."""
    outer = getattr(distiller, 'loss_weight', 1.0)
    if isinstance(outer, BalancedWeights):
        outer = outer.ratios
    largest = max(outer) if isinstance(outer, (list, tuple)) else outer
    for name, loss in distiller.distill_losses.items():
        weight = _weight(name, loss) * (largest if is_level(name) else 1)
        # MMEngine adds up what is called a loss; all else is shown in the log alone.
        if 'loss' in name:
            yield weight
    level_loss = getattr(distiller, 'level_loss', None)
    if level_loss is not None:
        yield _weight('level_loss', level_loss) * largest


def _weight(name: str, loss: nn.Module) -> float:
    _check_temperatures(f'{name}: {type(loss).__name__}', loss)
    weight = 1.0
    for part in loss_chain(loss):
        owner = f'{name}: {type(part).__name__}'
        weight *= _own_weight(owner, getattr(part, 'loss_weight', 1.0))
        # A loss of several terms has none where all of them weigh nothing.
        terms = [_own_weight(owner, getattr(part, k), k) for k in _terms_of(part)]
        weight *= any(terms) or not terms
    return weight


def _check_temperatures(owner: str, loss: nn.Module) -> None:
    for module in loss.modules():
        for key in _TEMPERATURES:
            # A learned temperature is a tensor.
            given = getattr(module, key, None)
            if isinstance(given, (int, float, str)):
                check_number(owner, key, given, above_zero=True)


def _own_weight(owner: str, weight: Any, key: str = 'loss_weight') -> float:
    # A learned weight is a tensor.
    if isinstance(weight, Tensor):
        return 1.0
    check_number(owner, key, weight)
    return weight


def _terms_of(loss: nn.Module) -> Sequence[str]:
    return next((keys for kind, keys in _TERMS.items() if isinstance(loss, kind)), ())
