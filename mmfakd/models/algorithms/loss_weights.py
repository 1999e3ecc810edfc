# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What distillation losses weigh, and where a config says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmrazor.models.distillers import ConfigurableDistiller

from mmfakd.models.distillers.any_distiller import hook_of
from mmfakd.models.losses import StandardizedLogitsLoss


class LossWeight(NamedTuple):
    """The weight of a loss.

    Args:
        weight (float, optional): All that scales it, where that is a number; else None.
        option (str): The key of a config that has it, '' where there is none.
    """

    weight: float | None
    option: str


def loss_weights(
    distiller: ConfigurableDistiller, names: Sequence[str], levels: int
) -> dict[str, LossWeight]:
    """Find the weights of losses.

    Args:
        distiller (ConfigurableDistiller): The distiller.
        names (Sequence[str]): The losses.
        levels (int): How many of them are levels.

    Returns:
        dict[str, LossWeight]: Name -> weight.
    """
    outer: Any = hook_of(distiller, 'level_weights')(levels) or []
    by_level: dict[str, Any] = {
        f'loss_level{i}': weight for i, weight in enumerate(outer)
    }
    found = {}
    for name in names:
        loss: Any = None
        if name in distiller.distill_losses:
            loss = distiller.distill_losses[name]
        elif name in by_level:
            loss = getattr(distiller, 'level_loss', None)
        weight: Any = getattr(loss, 'loss_weight', None)
        if name in by_level:
            own = weight if isinstance(weight, (int, float)) else 1
            found[name] = LossWeight(
                float(by_level[name]) * own, 'model.distiller.loss_weight'
            )
            continue
        option = f'model.distiller.distill_losses.{name}.loss_weight'
        if isinstance(loss, StandardizedLogitsLoss):
            weight = getattr(loss.loss, 'loss_weight', None)
            option = f'model.distiller.distill_losses.{name}.loss.loss_weight'
        known = isinstance(weight, (int, float))
        found[name] = LossWeight(
            float(weight) if known else None, option if known else ''
        )
    return found
