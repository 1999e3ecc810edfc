# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How cost grows with image size, channels and batch."""

from __future__ import annotations

import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from mmfakd.pictures.line_figures import COLORS, DASHES, MARKERS, STYLE, label_lines
from mmfakd.pictures.picture_file import save_picture

QUANTITIES = {
    'pixels': 'height and width, pixels',
    'channels': 'channels',
    'batch': 'batch size',
}


def growth_lines(cases: list[dict]) -> dict[str, dict[str, list[dict]]]:
    """Sort measurements into lines along which one quantity grows.

    Args:
        cases (list[dict]): What ``measure`` returned for the cases of the suite.

    Returns:
        dict[str, dict[str, list[dict]]]: Quantity -> side -> points, each with
        ``value``, ``seconds`` (median), ``q1``, ``q3`` and ``bytes``. Quantities of
        fewer than two points are left out.
    """
    lines: dict[str, dict[str, list[dict]]] = {}
    for quantity in QUANTITIES:
        along = [case for case in cases if quantity in case['varied']]
        if len(along) < 2:
            continue
        sides = lines[quantity] = {}
        for case in sorted(along, key=lambda case: case[quantity]):
            for side in case['sides']:
                point = dict(value=case[quantity], bytes=side['peak_bytes'])
                point['seconds'] = side['seconds']['median']
                point.update({key: side['seconds'][key] for key in ('q1', 'q3')})
                sides.setdefault(side['name'], []).append(point)
    return lines


def exponent(points: list[dict], key: str) -> float:
    """Slope between the two largest points of a line in double logarithmic axes.

    Small sizes say little: there the cost is that of starting the work.

    Args:
        points (list[dict]): Points of a line, as :func:`growth_lines` gives them.
        key (str): ``'seconds'`` or ``'bytes'``.

    Returns:
        float: The exponent p of a cost that grows like value ** p.
    """
    before, last = points[-2:]
    cost = math.log(last[key] / before[key])
    return cost / math.log(last['value'] / before['value'])


def draw_growth(cases: list[dict]) -> Figure:
    """Draw time and peak memory over each quantity, in double logarithmic axes.

    Args:
        cases (list[dict]): What ``measure`` returned for the cases of the suite.

    Returns:
        Figure: Time above, memory below, a column for each quantity; one line for
        each side, labelled with its name and its last slope; the band around a time
        reaches from the first quartile to the third.

    Raises:
        ValueError: If no quantity has two points.
    """
    lines = growth_lines(cases)
    if not lines:
        raise ValueError(
            'nothing to draw: a line needs two sizes that differ in one quantity. '
            'Measure more of the suite growth.'
        )
    rows = {'seconds': 'forward and backward, ms', 'bytes': 'peak memory, MB'}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.3 * len(lines), 4.6), layout='constrained')
        axes = figure.subplots(
            len(rows), len(lines), squeeze=False, sharex='col', sharey='row'
        )
        for column, (quantity, sides) in enumerate(lines.items()):
            for row, (key, label) in enumerate(rows.items()):
                axis = axes[row, column]
                _draw_panel(axis, sides, key)
                if column == 0:
                    axis.set_ylabel(label)
            axis.set_xlabel(QUANTITIES[quantity])
        # All lines first, as they decide together where a label stands.
        for axis in axes.flat:
            label_lines(axis)
    return figure


def save_growth(cases: list[dict], path: str) -> None:
    """Draw the growth into a file.

    Args:
        cases (list[dict]): What ``measure`` returned for the cases of the suite.
        path (str): The picture, ``.png``, ``.pdf`` or ``.svg``.
    """
    with matplotlib.rc_context(STYLE):
        save_picture(draw_growth(cases), path, dpi=200)


def _draw_panel(axis: Axes, sides: dict[str, list[dict]], key: str) -> None:
    axis.set_xscale('log')
    axis.set_yscale('log')
    factor = 1e3 if key == 'seconds' else 1e-6
    for (name, points), color, dashes, marker in zip(
        sides.items(), COLORS[1:], DASHES, MARKERS
    ):
        values = [point['value'] for point in points]
        axis.plot(
            values,
            [factor * point[key] for point in points],
            color=color,
            linestyle=dashes,
            marker=marker,
            label=f'{name}, slope {exponent(points, key):.1f}',
        )
        if key == 'seconds':
            low = [factor * point['q1'] for point in points]
            high = [factor * point['q3'] for point in points]
            axis.fill_between(values, low, high, color=color, alpha=0.2, linewidth=0)
    # The sizes themselves, and nothing between them.
    axis.xaxis.set_major_locator(FixedLocator(values))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter('{x:g}')
        scale.set_minor_locator(NullLocator())
