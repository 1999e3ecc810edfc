# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The look of figures with lines, which are labelled at their ends."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from matplotlib.axes import Axes

# Okabe and Ito's palette without its yellow, told apart by the colour-blind; in grey
# print the dashes and markers do it.
COLORS = ('#000000', '#D55E00', '#0072B2', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
DASHES = ('-', '--', '-.', (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = 'osD^vPX'
STYLE: dict[Any, Any] = {
    'font.size': 8,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.6,
    'axes.grid': True,
    'grid.color': '0.9',
    'grid.linewidth': 0.5,
    'lines.linewidth': 1.4,
    'lines.markersize': 4,
    'xtick.major.width': 0.6,
    'ytick.major.width': 0.6,
    # Text in a PDF stays text.
    'pdf.fonttype': 42,
    'svg.fonttype': 'none',
}


def label_lines(axis: Axes) -> None:
    """Write each line's name beside its end, at a distance from one another.

    Args:
        axis (Axes): The axes, with labelled lines.
    """
    # Else the limits change when the figure is drawn.
    axis.autoscale_view()
    to_axes = axis.transData + axis.transAxes.inverted()
    ends = {line: np.asarray(line.get_xydata())[-1] for line in axis.lines}
    heights = {line: to_axes.transform(end)[1] for line, end in ends.items()}
    lines = sorted(axis.lines, key=heights.__getitem__)
    places = keep_apart([heights[line] for line in lines], gap=0.07)
    for line, place in zip(lines, places):
        color = line.get_color()
        axis.annotate(
            str(line.get_label()),
            xy=ends[line],
            xycoords=line.get_transform(),
            xytext=(1.07, place),
            textcoords='axes fraction',
            color=color,
            # A name may have a dollar.
            parse_math=False,
            va='center',
            annotation_clip=False,
            arrowprops=dict(
                arrowstyle='-', color=color, linewidth=0.5, relpos=(0, 0.5), shrinkA=1
            ),
        )


def keep_apart(values: list[float], gap: float) -> list[float]:
    """Move ascending values as little as possible to be `gap` apart (least squares).

    That is isotonic regression of what remains when the gaps are taken out, by
    pooling neighbours that are out of order.

    Args:
        values (list[float]): The values, rising.
        gap (float): The least distance of neighbours.

    Returns:
        list[float]: The moved values, between 0 and 1. More than have room there reach
        beyond both alike.
    """
    pools: list[list[float]] = []
    for index, value in enumerate(values):
        pools.append([value - index * gap])
        while pools[1:] and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    means = [statistics.fmean(pool) for pool in pools for _ in pool]
    free = 1 - (len(values) - 1) * gap
    low, high = min(0, free / 2), max(free / 2, free)
    return [min(max(m, low), high) + index * gap for index, m in enumerate(means)]
