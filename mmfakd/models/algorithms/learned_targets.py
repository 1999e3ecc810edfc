# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Targets that move towards the student."""

from __future__ import annotations

from collections.abc import Mapping

from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor

from mmfakd.models.distillers.any_distiller import compared_levels

from .idle_parameters import reached_parameters


def learned_targets(
    distiller: ConfigurableDistiller, losses: Mapping[str, Tensor]
) -> list[str]:
    """Tell of connectors behind the teacher that learn by the loss itself.

    Some methods are meant so (contrastive ones, which cannot fall to nothing). With a
    distance the target itself may shrink.

    Args:
        distiller (ConfigurableDistiller): The distiller.
        losses (Mapping[str, Tensor]): Its losses of this step, scalars.

    Returns:
        list[str]: A sentence or two for each loss.
    """
    told = []
    for name, levels in compared_levels(distiller).items():
        names = {level.connector for level in levels if not level.from_student}
        theirs = [distiller.connectors[n] for n in names if n is not None]
        if not theirs or name not in losses:
            continue
        reached = {id(p) for p in reached_parameters([losses[name]])}
        learned = {id(p): p.numel() for c in theirs for p in c.parameters()}
        count = sum(n for key, n in learned.items() if key in reached)
        if count:
            told.append(
                f"{name}: the teacher's feature passes {count:,} weights that learn, "
                'so the loss can fall by a target that becomes trivial. Put the '
                "connector on the student's side, or freeze it, unless the method "
                'wants it so.'
            )
    return told
