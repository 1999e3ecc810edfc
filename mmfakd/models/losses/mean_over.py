# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a loss is a mean over, so that padding can be left out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from mmrazor.models import losses as razor
from torch import nn

# What `mean_over` may be.
PIXELS, IMAGES, BATCH = 'pixels', 'images', 'batch'
Rule = Callable[[Any], Optional[str]]


def mean_over(loss: nn.Module) -> str | None:
    """Tell what a loss on maps is a mean over.

    Args:
        loss (nn.Module): The loss. One of your own says it by its attribute
            ``mean_over``.

    Returns:
        str, optional: ``'pixels'``: terms that are 0 where both maps are, over all
        pixels of the batch. ``'images'``: what each image yields without the others.
        ``'batch'``: over all pixels as one set, in which their places do not matter.
        None: not known.
    """
    if hasattr(loss, 'mean_over'):
        return loss.mean_over  # type: ignore[return-value]
    for kind, rule in _RULES.items():
        # Not of a subclass that computes something else.
        if isinstance(loss, kind) and type(loss).forward is kind.forward:
            return rule(loss)
    return None


def _if_mean(loss: Any) -> str | None:
    return PIXELS if loss.reduction == 'mean' else None


def _l1(loss: Any) -> str | None:
    # Either of them overrules `reduction`.
    return _if_mean(loss) if loss.size_average is loss.reduce is None else None


def _l2(loss: Any) -> str | None:
    if loss.dist:
        return None
    return PIXELS if loss.div_element else IMAGES


def _divergence(loss: Any) -> str | None:
    return IMAGES if loss.reduction == 'batchmean' else _if_mean(loss)


_RULES: dict[type[nn.Module], Rule] = {
    nn.MSELoss: _if_mean,
    nn.L1Loss: _if_mean,
    nn.SmoothL1Loss: _if_mean,
    nn.HuberLoss: _if_mean,
    razor.L1Loss: _l1,
    razor.L2Loss: _l2,
    razor.ATLoss: lambda _: PIXELS,
    razor.FTLoss: lambda _: PIXELS,
    razor.KLDivergence: _divergence,
    # Sums over an image's pixels, or a softmax of them, divided by the images.
    razor.ABLoss: lambda _: IMAGES,
    razor.ChannelWiseDivergence: lambda _: IMAGES,
    razor.MGDLoss: lambda _: IMAGES,
    razor.OFDLoss: lambda _: IMAGES,
    # It normalises channels over the batch.
    razor.PKDLoss: lambda _: BATCH,
}
