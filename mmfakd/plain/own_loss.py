# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The student's own loss, as a training loop gives it."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from .layer import describe


def check_own_loss(own: Any) -> None:
    """Refuse what is no loss of a student.

    Args:
        own (Any): What was given as ``own``.

    Raises:
        ValueError: If it is no tensor of one value.
    """
    if isinstance(own, Tensor) and own.numel() == 1:
        return
    advice = 'the loss itself, not loss.item(): loss(own=loss)'
    if isinstance(own, Tensor):
        advice = 'what is trained with, as a rule the mean: loss(own=losses.mean())'
    raise ValueError(
        f"Distillation.loss: got {describe(own)} as `own`; expected the student's own "
        f'loss, a tensor of one value. Give {advice}.'
    )


def tell_if_without_graph(own: Tensor | None) -> None:
    """Warn of a loss of which no gradient can be taken.

    Args:
        own (Tensor, optional): The student's own loss.
    """
    if own is None or own.requires_grad:
        return
    print_log(
        'Distillation.loss: `own` has no graph, so there is no gradient to compare '
        'with. Give the loss as it goes into backward(), without detach(): '
        'loss(own=loss).',
        logger='current',
        level=logging.WARNING,
    )
