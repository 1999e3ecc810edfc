# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Curves of several trainings in one figure."""

from __future__ import annotations

import statistics
from itertools import cycle

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmfakd.pictures.line_figures import COLORS, DASHES, MARKERS, STYLE, label_lines
from mmfakd.pictures.picture_file import save_picture


def draw_curves(comparison: dict) -> Figure:
    """Draw scores, and training losses where there are any, over the training.

    Args:
        comparison (dict): What :func:`compare_runs.compare` returns.

    Returns:
        Figure: One line per method, the mean over its seeds, labelled with the method;
        the band around it reaches from the lowest seed to the highest.

    Raises:
        ValueError: If some methods count epochs and others iterations, or none has a
            run that counts.
    """
    methods = [method for method in comparison['methods'] if method['runs']]
    units = {method['unit']: method['method'] for method in methods}
    if not units:
        raise ValueError('no run to draw; the notes say why.')
    if len(units) > 1:
        raise ValueError(
            f'{units["epoch"]} counts epochs, {units["iteration"]} iterations: they '
            'share no axis. Draw them one at a time.'
        )
    panels = {'curve': f'{comparison["metric"]}, validation'}
    if any(run['losses'] for method in methods for run in method['runs']):
        panels['losses'] = 'own training loss, as weighted'
    [unit] = units
    # The names stand beside the axes, in letters of about 0.06 inches.
    width = 2.5 + 0.06 * max(len(method['method']) for method in methods)
    # One above the other; more than six reach beyond the axes.
    height = 2.9 + 0.15 * max(0, len(methods) - 6)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * len(panels), height), layout='constrained')
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (key, label) in zip(axes, panels.items()):
            _draw_panel(axis, methods, key)
            axis.set_xlabel(unit)
            axis.set_ylabel(label, parse_math=False)
            axis.set_xmargin(0.02)
            axis.xaxis.get_major_locator().set_params(integer=True)
            positive = all(min(line.get_ydata()) > 0 for line in axis.lines)
            if key == 'losses' and positive:
                axis.set_yscale('log')
            teacher = comparison['teacher']
            if key == 'curve' and teacher and teacher['runs']:
                score = teacher['last']['mean']
                axis.axhline(score, color='0.5', linestyle=':', label='teacher')
            label_lines(axis)
    return figure


def save_curves(comparison: dict, path: str) -> None:
    """Draw the curves into a file.

    Args:
        comparison (dict): What :func:`compare_runs.compare` returns.
        path (str): The picture, ``.png``, ``.pdf`` or ``.svg``.
    """
    figure = draw_curves(comparison)
    with matplotlib.rc_context(STYLE):
        save_picture(figure, path, dpi=200)


def _draw_panel(axis: Axes, methods: list[dict], key: str) -> None:
    looks = zip(cycle(COLORS), cycle(DASHES), cycle(MARKERS))
    for index, (method, (color, dashes, marker)) in enumerate(zip(methods, looks)):
        curves = [dict(run[key]) for run in method['runs']]
        xs = sorted(set(curves[0]).intersection(*curves[1:]))
        if not xs:
            continue
        seeds = [[curve[x] for curve in curves] for x in xs]
        # Markers of different lines at different places.
        step = max(1, len(xs) // 5)
        axis.plot(
            xs,
            [statistics.fmean(values) for values in seeds],
            color=color,
            linestyle=dashes,
            marker=marker,
            markevery=(index % step, step),
            label=method['method'],
        )
        if len(curves) > 1:
            lowest, highest = [min(v) for v in seeds], [max(v) for v in seeds]
            axis.fill_between(xs, lowest, highest, color=color, alpha=0.12, linewidth=0)
