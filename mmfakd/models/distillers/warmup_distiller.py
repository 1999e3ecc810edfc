# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmrazor's distiller with a warm-up."""

from __future__ import annotations

from typing import Any

from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor

from mmfakd.registry import MODELS

from .warmup import Warmup


@MODELS.register_module()
class WarmupDistiller(ConfigurableDistiller):
    r"""A ``ConfigurableDistiller`` whose losses grow to their full weight.

    .. math::
        \mathcal{L} = w(t) \sum_i \mathcal{L}_i

    with :math:`w` the factor of :class:`Warmup`.

    Source: the recipe of *Decoupled Knowledge Distillation* (arXiv 2203.08679).

    Args:
        warmup (dict): ``dict(by_epoch=True, begin=0, end=20)``, see :class:`Warmup`.
        **kwargs: Arguments of mmrazor's ``ConfigurableDistiller``.

    Raises:
        ValueError: For a bad warm-up.
    """

    def __init__(self, warmup: dict, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.warmup = Warmup(warmup)
        # The losses of this step at full weight.
        self.full_losses: dict[str, Tensor] = {}

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Compute the losses of the mappings, scaled by the warm-up.

        Returns:
            dict[str, Tensor]: The losses under their names; values whose names have
            no "loss" in them are statistics and stay; and the present factor as
            ``warmup``.
        """
        losses = self.full_losses = super().compute_distill_losses()
        factor = self.warmup.factor()
        scaled = {k: factor * v if 'loss' in k else v for k, v in losses.items()}
        self.warmup.report(scaled, factor)
        return scaled

    def forget_step(self) -> None:
        """Let the graph of the step go; called at its end."""
        self.full_losses = {}
