# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Arguments with one value for each level."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

Size = tuple[int, int]


def per_level(
    value: Any, levels: int, name: str, owner: str, source: str = 'in_channels'
) -> list:
    """Give every level its own: one value for all, or one for each.

    Args:
        value (Any): None, a number, a config, or a sequence of them.
        levels (int): Number of levels.
        name (str): The argument's name, for the message.
        owner (str): Name of what has the argument, likewise.
        source (str): The argument that tells the number of levels, likewise.

    Returns:
        list: A value for each level.

    Raises:
        ValueError: For a sequence of another length, or what is no value of a config.
    """
    if value is None or isinstance(value, (int, float, Mapping)):
        return [value] * levels
    if not isinstance(value, Collection):
        raise ValueError(
            f'{owner} got {name}={value!r}, expected one for all, or one for each of '
            f'{levels} levels, shallow to deep, as a config has them.'
        )
    if isinstance(value, str) or len(value) != levels:
        raise ValueError(
            f'{owner} got {name} for {len(value)} levels ({value}), expected {levels}, '
            f'as {source} has {levels} entries. Give {name}: one for all, or one for '
            f'each, shallow to deep; not {len(value)} values for {levels} levels.'
        )
    return list(value)


def channels_per_level(value: Any, levels: int, name: str, owner: str) -> list[int]:
    """Give every level its number of channels.

    Args:
        value (int | Sequence[int]): One for all, or one for each.
        levels (int): Number of levels.
        name (str): The argument's name, for the message.
        owner (str): Name of what has the argument, likewise.

    Returns:
        list[int]: A number for each level.

    Raises:
        ValueError: For a sequence of another length, or what is no positive integer.
    """
    channels = per_level(value, levels, name, owner)
    for i, number in enumerate(channels):
        if not isinstance(number, int) or number < 1:
            raise ValueError(
                f'{owner} got {name}={value!r}: {number!r} of level {i} is no number '
                'of channels; expected a positive integer for each level, shallow to '
                'deep.'
            )
    return channels


def count_levels(in_channels: Any, owner: str) -> int:
    """Count the levels of a connector.

    Args:
        in_channels (Sequence[int]): Its student's channels.
        owner (str): Name of the connector, for the message.

    Returns:
        int: Their number.

    Raises:
        ValueError: If it is no sequence, or an empty one.
    """
    several = isinstance(in_channels, Sequence) and not isinstance(in_channels, str)
    if not several or not len(in_channels):
        raise ValueError(
            f'{owner} got in_channels={in_channels!r}, expected a sequence with the '
            "student's channels of each level, shallow to deep, such as [16, 32, 64]."
        )
    return len(in_channels)


def check_count(feature: Any, levels: int, owner: str) -> None:
    """Check that there is a feature for each level.

    Args:
        feature (Sequence[Tensor]): The student's features.
        levels (int): Number of levels.
        owner (str): Name of the connector, for the message.

    Raises:
        ValueError: If it is one tensor, or there are more or fewer.
    """
    if isinstance(feature, Tensor) or len(feature) != levels:
        got = (
            f'one tensor of shape {tuple(feature.shape)}'
            if isinstance(feature, Tensor)
            else f'{len(feature)} of them'
        )
        raise ValueError(
            f'{owner} expects a sequence of {levels} features, shallow to deep, and '
            f'got {got}: give in_channels and out_channels one entry for each recorded '
            'level.'
        )


def sizes_and_scales(
    sizes: Any, scales: Any, levels: int, owner: str
) -> tuple[list[Size | None], list[float]]:
    """Parse where the predictions' sizes come from.

    Args:
        sizes (int | Sequence[int | tuple[int, int]], optional): Height and width of
            the predictions.
        scales (float | Sequence[float], optional): Their sizes over those of the
            student's features.
        levels (int): Number of levels.
        owner (str): The connector's name, for messages.

    Returns:
        tuple[list, list]: Size (h, w) or None, and scale, for each level.

    Raises:
        ValueError: For both of them, a sequence of another length, sizes that are no
            integers and scales that are not positive.
    """
    if sizes is not None and scales is not None:
        raise ValueError(
            f'{owner} got sizes={sizes} and scales={scales}, expected at most one: '
            '`sizes` fixes the sizes of the predictions, `scales` derives them from '
            "the student's."
        )
    grids = per_level(sizes, levels, 'sizes', owner)
    grids = [(n, n) if isinstance(n, int) else n for n in grids]
    factors = per_level(1.0 if scales is None else scales, levels, 'scales', owner)
    for i, (grid, scale) in enumerate(zip(grids, factors)):
        if grid is not None and not _is_grid(grid):
            raise ValueError(
                f'{owner} got sizes={sizes!r}: {grid!r} of level {i} is no size; '
                'expected a positive integer, or two of them, (height, width), in '
                'pixels, for each level.'
            )
        if not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
            raise ValueError(
                f'{owner} got scales={scales!r}: {scale!r} of level {i} is no scale; '
                "expected the teacher's size over the student's, a number above 0, "
                'for each level.'
            )
    return [grid and tuple(grid) for grid in grids], factors


def _is_grid(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(n, int) and n > 0 for n in value)
    )
