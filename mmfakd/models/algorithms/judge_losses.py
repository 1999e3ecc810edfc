# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Judges whether each distillation loss is a number, and pulls at the student."""

from __future__ import annotations

import math

from .first_step import FirstStep
from .level_report import LevelReport


def judge_losses(step: FirstStep, in_float16: bool) -> None:
    """Tell of losses and gradients that are not finite, and of gradients of zero.

    Args:
        step (FirstStep): The report, with its numbers, to which errors and warnings are
            added.
        in_float16 (bool): Whether the step is computed in float16, where an overflow
            passes: a loss scaler skips such steps.
    """
    for row in step.levels:
        # A weight of 0 makes nothing of it finite.
        if not math.isfinite(row.loss):
            kind = step.warnings if in_float16 else step.errors
            kind.append(_not_a_number(row, in_float16))
        elif step.unmeasured or not row.reached:
            # What reaches nothing is told where the reason is known.
            continue
        elif not math.isfinite(row.norm):
            step.warnings.append(
                f'{row.title}: the gradient of a loss on the student is not finite, '
                f'although the loss is ({row.loss:.3g}): a root or a norm of exactly '
                '0, for example. In half precision the scaler of losses may mend it; '
                'elsewhere every weight that it reaches is lost with the first step.'
            )
        elif row.norm == 0 and row.weight != 0:
            step.warnings.append(_pulls_nowhere(row))


def _not_a_number(row: LevelReport, in_float16: bool) -> str:
    what = f'{row.title}: the loss is {row.loss} before anything has been learned'
    causes = (
        'Look for a division by 0, a root or a logarithm in it, a layer of the student '
        'that is zero everywhere under a loss that normalises, and features that are '
        'not finite'
    )
    if in_float16:
        return (
            f'{what}. The loss scaler skips such steps, so nothing is learned until '
            f"that ends. {causes}, or train with 'bfloat16'."
        )
    return f'{what}: the first step may spoil every weight. {causes}.'


def _pulls_nowhere(row: LevelReport) -> str:
    return (
        f'{row.title}: its gradient on the student is exactly 0, so it teaches nothing '
        f'in this batch (the loss is {row.loss:.3g}). Possible causes: weights of 0 '
        'inside the loss, a band without frequencies on a map of this size, the same '
        'feature on both sides, or a dead layer. Nothing is wrong if it is the start '
        'alone: a student with the weights of its teacher, a connector that begins at '
        'zero, a warm-up within the loss, or a mask that is empty in this batch.'
    )
