# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses that hold a loss."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .logit_map_loss import LogitMapLoss
from .standardized_logits_loss import StandardizedLogitsLoss


def loss_chain(loss: nn.Module) -> Iterator[nn.Module]:
    """List a loss and what it hands its inputs on to, whose value it scales.

    Args:
        loss (nn.Module): The loss.

    Yields:
        nn.Module: Itself, the loss within it, and so on.
    """
    yield loss
    while isinstance(loss, (LogitMapLoss, StandardizedLogitsLoss)):
        loss = loss.loss
        yield loss
