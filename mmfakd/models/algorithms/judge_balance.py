# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Judges how strong distillation is beside the student's own loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mmrazor.models.distillers import ConfigurableDistiller

from mmfakd.models.distillers import BalancedWeights
from mmfakd.models.distillers.any_distiller import is_level

from .first_step import FirstStep
from .level_report import LevelReport

# Gradients of distillation over those of the student's own loss.
STRONGEST = 10.0
WEAKEST = 0.01


def judge_balance(
    step: FirstStep,
    distiller: ConfigurableDistiller,
    measure: Callable[[dict[str, float]], float],
) -> None:
    """Warn of losses that drown the student's own, or do nothing beside it.

    Args:
        step (FirstStep): The report, to which warnings are added.
        distiller (ConfigurableDistiller): The distiller.
        measure (Callable): Tells the ratio of all losses together, once they are
            scaled by factors, name -> factor.
    """
    total = step.total
    if total is None or step.unmeasured or math.isnan(total.own_norm):
        return
    active = [row for row in step.levels if row.norm > 0]
    if not active or not all(math.isfinite(row.norm) for row in step.levels):
        # What is not finite, `judge_losses` tells.
        return
    if not math.isfinite(total.norm) or not math.isfinite(total.own_norm):
        step.warnings.append(
            'The gradient of a loss on the student is not finite. In half precision '
            'the scaler of losses may mend it; elsewhere look at the losses above.'
        )
        return
    if total.own_norm == 0:
        step.notes.append(
            "the student's own loss has no gradient on the weights that distillation "
            'reaches yet (a head that begins at zero?), so there is nothing to compare '
            'with.'
        )
        return
    balanced, asked = _balanced(distiller), 1.0
    if balanced is not None:
        if not balanced.fixed:
            step.notes.append('the weights of the levels are being measured.')
            return
        # One batch is about what was asked for, not below it.
        asked = sum(balanced.ratios)
    strongest = STRONGEST * max(asked, 1)
    if not WEAKEST * min(asked, 1) <= total.ratio <= strongest:
        factors = _factors(active, total.ratio, measure)
        drowned = 'its task may drown in imitation'
        if total.ratio < 1:
            drowned = 'the teacher hardly matters'
        step.warnings.append(
            f"Distillation's gradient on the student is {total.ratio:.3g} times that "
            f'of its own loss: {drowned}. It would be as large (ratio 1) with '
            f'{_advice(step.levels, factors, distiller)}'
        )
        return
    strong = [row for row in active if row.ratio > strongest]
    for row in strong:
        factors = {row.name: 1 / row.ratio} if math.isfinite(row.ratio) else {}
        if factors:
            step.warnings.append(
                f'{row.title}: its gradient is {row.ratio:.3g} times that of the '
                "student's own loss on the weights that it reaches. It would be as "
                f'large with {_advice(step.levels, factors, distiller)}'
            )


def _balanced(distiller: ConfigurableDistiller) -> BalancedWeights | None:
    weights = getattr(distiller, 'loss_weight', None)
    return weights if isinstance(weights, BalancedWeights) else None


def _factors(
    active: Sequence[LevelReport],
    ratio: float,
    measure: Callable[[dict[str, float]], float],
) -> dict[str, float]:
    """What brings the ratio to 1: of all losses alike, unless one drowns the rest."""
    norms = sorted(row.norm for row in active)
    if len(norms) < 2 or norms[-1] <= STRONGEST * norms[-2]:
        return {row.name: 1 / ratio for row in active}
    # Each as strong as the others first.
    factors = {row.name: 1 / row.norm for row in active}
    level = measure(factors)
    return {name: factor / level for name, factor in factors.items()}


def _advice(
    rows: Sequence[LevelReport],
    factors: dict[str, float],
    distiller: ConfigurableDistiller,
) -> str:
    """Weights as they are written in a config and on a command line."""
    levels = [row for row in rows if is_level(row.name)]
    levels = [row for row in levels if row.option.endswith('distiller.loss_weight')]
    written, options, others = [], [], []
    if any(row.name in factors for row in levels):
        outer = distiller.level_weights(len(levels))
        weights = [
            _number(float(old) * factors.get(row.name, 1.0))
            for row, old in zip(levels, outer)
        ]
        written.append(f'`loss_weight=[{", ".join(weights)}]` in `model.distiller`')
        options.append(f'model.distiller.loss_weight="[{",".join(weights)}]"')
    for row in rows:
        if row in levels or row.name not in factors:
            continue
        if not row.option or row.weight is None:
            others.append(f'{row.name} scaled by {_number(factors[row.name])}')
            continue
        weight = _number(row.weight * factors[row.name])
        written.append(f'`loss_weight={weight}` of {row.name}')
        options.append(f'{row.option}={weight}')
    text = ' and '.join([*written, *others])
    if options:
        text += f', that is --cfg-options {" ".join(options)}'
    if written and levels and _balanced(distiller):
        text += '. The weights are those that were measured before, as in `load_from`.'
    elif written and levels:
        # An untrained detector's own gradient differs by factors of a hundred.
        text += (
            '. This is one batch, and those of detectors differ much: '
            'model.distiller.loss_weight=balance measures a hundred of them.'
        )
    return text


def _number(value: float) -> str:
    return f'{value:.3g}'
