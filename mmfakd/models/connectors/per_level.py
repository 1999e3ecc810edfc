# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Arguments with one value for each level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        ValueError: For a sequence of another length.
    """
    if value is None or isinstance(value, (int, float, Mapping)):
        return [value] * levels
    if isinstance(value, str) or len(value) != levels:
        raise ValueError(
            f'{owner} got {name} for {len(value)} levels ({value}), expected {levels}, '
            f'as {source} has {levels} entries. Give {name}: one for all, or one for '
            f'each, shallow to deep; not {len(value)} values for {levels} levels.'
        )
    return list(value)


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
        ValueError: For both of them, or a sequence of another length.
    """
    if sizes is not None and scales is not None:
        raise ValueError(
            f'{owner} got sizes={sizes} and scales={scales}, expected at most one: '
            '`sizes` fixes the sizes of the predictions, `scales` derives them from '
            "the student's."
        )
    grids = per_level(sizes, levels, 'sizes', owner)
    return (
        [(n, n) if isinstance(n, int) else n and tuple(n) for n in grids],
        per_level(1.0 if scales is None else scales, levels, 'scales', owner),
    )
