# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How large the filters of frequency attention are to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmfakd.ops.filter_groups import MOST_MODE_WEIGHTS, fewest_groups

from .plan import Plan

# Weights of one level's filter. A filter of R34-R18's has 13 M.
MOST_DENSE_WEIGHTS = 2**24
MOST_MODES = 16
# Fewer say little more than the mean of a map; rather groups, then.
FEWEST_MODES = 4


def plan_dense(mid_channels: int, out_channels: int, size: Sequence[int]) -> dict:
    """Plan a filter on maps of one size.

    It is dense, one weight for each pair of channels and frequency, in as few groups
    as keep it below :data:`MOST_DENSE_WEIGHTS`. Where the channels do not divide into
    that many, it covers the lowest frequencies only.

    Args:
        mid_channels (int): Channels that go in.
        out_channels (int): Channels that come out.
        size (Sequence[int]): Height and width of the maps.

    Returns:
        dict: ``groups`` where more than one, and ``modes`` where not all.
    """
    groups = fewest_groups(
        mid_channels, out_channels, math.prod(size), MOST_DENSE_WEIGHTS
    )
    plan: dict[str, Any] = {}
    weights = mid_channels * out_channels // groups
    if weights * math.prod(size) > MOST_DENSE_WEIGHTS and math.prod(size) > 1:
        modes = max(2, math.isqrt(MOST_DENSE_WEIGHTS // weights))
        plan['modes'] = modes if modes < min(size) else tuple(size)
    if groups > 1:
        plan['groups'] = groups
    return plan


def plan_modes(
    mid_channels: int, out_channels: int, short_side: int, mixed: bool = False
) -> dict:
    """Plan a filter for maps of any size.

    It covers the 16 lowest frequencies of each axis, or as many as the short side of a
    typical map has, in as few groups as keep it at or below
    :data:`~mmfakd.ops.filter_groups.MOST_MODE_WEIGHTS`. Layer to layer it rather has
    fewer frequencies, down to :data:`FEWEST_MODES`, than groups: there students gained
    more from filters that mix all channels (docs/en/results/capacity.md).

    Args:
        mid_channels (int): Channels that go in.
        out_channels (int): Channels that come out.
        short_side (int): Short side of a typical map in pixels.
        mixed (bool): Whether to have fewer frequencies rather than groups.

    Returns:
        dict: ``modes``, and ``groups`` where more than one.
    """
    modes = max(1, min(MOST_MODES, short_side))
    channels = mid_channels, out_channels
    if mixed:
        affordable = math.isqrt(MOST_MODE_WEIGHTS // math.prod(channels))
        modes = min(modes, max(FEWEST_MODES, affordable))
    groups = fewest_groups(*channels, modes * modes, MOST_MODE_WEIGHTS)
    return dict(modes=modes, groups=groups) if groups > 1 else dict(modes=modes)


def plan_filters(plan: Plan) -> list[dict]:
    """Plan the filter of each level.

    Args:
        plan (Plan): What the config is to state.

    Returns:
        list[dict]: ``modes`` and ``groups`` of each, where they are not the defaults;
        none for methods without frequency attention.
    """
    if not plan.method.startswith('fakd'):
        return []
    read, plans = plan.read_size, []
    for mid, (_, theirs) in zip(plan.mid_channels, plan.pairs):
        if plan.fixed:
            plans.append(plan_dense(mid, theirs.channels, theirs.size))
            continue
        side = min(theirs.size)
        if read is not None:
            side = min(read.height, read.width) // theirs.stride
        mixed = plan.method == 'fakd-layer'
        plans.append(plan_modes(mid, theirs.channels, side, mixed))
    return plans
