# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Figures of what the levels of a distillation compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .attention import attention_maps, grey_images
from .level_maps import LevelMaps
from .line_figures import COLORS, STYLE
from .spectra import BANDS, filter_magnitude, radial_filter, radial_spectrum

_ROLES = ('student', 'prediction', 'teacher')
# Inches of a panel.
_WIDTH, _HEIGHT = 3.0, 2.6
# Of lines that are more than there are colours.
_DASHES = ('-', '--', ':', '-.')


def draw_filters(levels: Sequence[LevelMaps]) -> Figure:
    """Draw the filter of each level, above it by frequency.

    Args:
        levels (Sequence[LevelMaps]): Levels that have a filter.

    Returns:
        Figure: Upper row: magnitude, mean over its channels, the mean (DC) in the
        middle. Lower row: the same over the radius of the frequency. Frequencies that
        the level's maps lack are blank.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(2, len(levels))
        for (upper, lower), level in zip(axes.T, levels):
            assert level.filter is not None
            _draw_filter(upper, level)
            size = level.prediction.shape[-2:]
            lower.plot(radial_filter(level.filter, size), color=COLORS[2], marker='.')
            lower.set_ylim(bottom=0)
            _count(lower)
        axes[0][0].set_ylabel('cycles per image')
        axes[1][0].set_ylabel('magnitude')
    return figure


def draw_overview(levels: Sequence[LevelMaps], before: Sequence[LevelMaps]) -> Figure:
    """Draw filters above spectra.

    Args:
        levels (Sequence[LevelMaps]): The levels, of which one at least has a filter.
        before (Sequence[LevelMaps]): The same before training.

    Returns:
        Figure: Upper row: magnitude of the filters. Lower row: amplitudes over the
        radius of the frequency.
    """
    filters = [level for level in levels if level.filter is not None]
    earlier = {level.name: level for level in before}
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(2, max(len(filters), len(levels)))
        for axis in axes.flat:
            axis.set_visible(False)
        for axis, level in zip(axes[0], filters):
            axis.set_visible(True)
            _draw_filter(axis, level)
        for axis, level in zip(axes[1], levels):
            axis.set_visible(True)
            _draw_spectra(axis, level, earlier.get(level.name))
            _title(axis, level.title)
            _count(axis)
        axes[0][0].set_ylabel('cycles per image')
        axes[1][0].set_ylabel('root mean square amplitude')
        _explain(figure, axes[1][0])
    return figure


def draw_spectra(
    levels: Sequence[LevelMaps], before: Sequence[LevelMaps] = ()
) -> Figure:
    """Draw spectra of student, prediction and teacher.

    Args:
        levels (Sequence[LevelMaps]): The levels.
        before (Sequence[LevelMaps]): The same before training; none are fine.

    Returns:
        Figure: One panel a level, amplitudes over the radius of the frequency.
    """
    earlier = {level.name: level for level in before}
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, len(levels))
        for axis, level in zip(axes[0], levels):
            _draw_spectra(axis, level, earlier.get(level.name))
            _title(axis, level.title)
            _count(axis)
        axes[0][0].set_ylabel('root mean square amplitude')
        _explain(figure, axes[0][0])
    return figure


def draw_gaps(levels: Sequence[LevelMaps], before: Sequence[LevelMaps] = ()) -> Figure:
    """Draw how far predictions are from the teacher's features, by band.

    Args:
        levels (Sequence[LevelMaps]): Levels whose two features have one shape.
        before (Sequence[LevelMaps]): The same before training; none are fine.

    Returns:
        Figure: One panel a level, a bar for each band.
    """
    earlier = {level.name: level for level in before}
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, len(levels), share=True)
        for axis, level in zip(axes[0], levels):
            rows = {'after training' if before else 'now': level}
            if level.name in earlier:
                rows = {'before training': earlier[level.name], **rows}
            width = 0.8 / len(rows)
            for i, (name, row) in enumerate(rows.items()):
                gaps = row.gaps()
                places = [list(BANDS).index(band) for band in gaps]
                shift = (i - (len(rows) - 1) / 2) * width
                axis.bar(
                    [place + shift for place in places],
                    list(gaps.values()),
                    width,
                    label=name,
                    color=COLORS[5 - 3 * (i + 2 - len(rows))],
                )
            axis.set_xticks(range(len(BANDS)), list(BANDS))
            axis.axhline(1, color='0.4', linewidth=0.8, linestyle=':')
            axis.set_axisbelow(True)
            _title(axis, level.title)
        axes[0][0].set_ylabel('gap to the teacher')
        _explain(figure, axes[0][0])
    return figure


def draw_attention(
    inputs: Tensor, levels: Sequence[LevelMaps], images: int = 2
) -> Figure:
    """Draw where on images the features are large.

    Args:
        inputs (Tensor): The images (N, C, H, W), as the student got them.
        levels (Sequence[LevelMaps]): Their levels.
        images (int): How many of them, from the first. Defaults to 2.

    Returns:
        Figure: A row for student, prediction and teacher of each image; the first
        column has the image, the others have a level each.
    """
    count = min(images, len(inputs))
    grey = grey_images(inputs[:count])
    size = inputs.shape[-2:]
    with matplotlib.rc_context(STYLE):
        side = 1.6
        shape = (side * (len(levels) + 1), side * size[0] / size[1] * 3 * count + 0.4)
        figure = Figure(figsize=shape, layout='constrained')
        axes = figure.subplots(3 * count, len(levels) + 1, squeeze=False)
        for axis in axes.flat:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
        for row, (image, role) in enumerate(
            (image, role) for image in range(count) for role in _ROLES
        ):
            axes[row][0].set_ylabel(role)
            axes[row][0].imshow(grey[image], cmap='gray', vmin=0, vmax=1)
            for axis, level in zip(axes[row][1:], levels):
                feature = getattr(level, role)[image : image + 1]
                axis.imshow(grey[image], cmap='gray', vmin=0, vmax=1)
                heat = attention_maps(feature, size)[0]
                axis.imshow(heat, cmap='inferno', vmin=0, vmax=1, alpha=0.7)
        axes[0][0].set_title('image')
        for axis, level in zip(axes[0][1:], levels):
            _title(axis, level.title.replace(': ', '\n'))
    return figure


def draw_courses(
    courses: Mapping[str, Mapping[str, Mapping[int, float]]], scale: str = 'log'
) -> Figure:
    """Draw numbers over the course of a training.

    Args:
        courses (Mapping): Title of a panel -> name of a line -> iteration -> value.
        scale (str): That of the values, ``'log'`` or ``'linear'``, which begins at 0.
            Defaults to 'log'.

    Returns:
        Figure: One panel for each title.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, len(courses), share=True)
        for axis, (title, lines) in zip(axes[0], courses.items()):
            looks = cycle((dash, color) for dash in _DASHES for color in COLORS)
            for (dash, color), (name, values) in zip(looks, lines.items()):
                axis.plot(
                    list(values),
                    list(values.values()),
                    color=color,
                    linestyle=dash,
                    label=name,
                )
            _title(axis, title)
            axis.set_xlabel('iteration')
            axis.set_yscale(scale)
            if scale == 'linear':
                axis.set_ylim(bottom=0)
            for text in axis.legend().get_texts():
                text.set_parse_math(False)
    return figure


def as_image(figure: Figure) -> np.ndarray:
    """Render a figure.

    Args:
        figure (Figure): The figure.

    Returns:
        np.ndarray: (H, W, 3), RGB; 100 pixels per inch.
    """
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _panels(rows: int, columns: int, share: bool = False) -> tuple[Figure, np.ndarray]:
    size = (_WIDTH * columns, _HEIGHT * rows)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(
        rows, columns, squeeze=False, sharey='row' if share else False
    )
    return figure, axes


def _title(axis: Axes, text: str) -> None:
    # Losses and layers have names that users give; a dollar in one is no formula.
    axis.set_title(text, parse_math=False)


def _draw_filter(axis: Axes, level: LevelMaps) -> None:
    assert level.filter is not None
    height, width = level.filter.grid
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    extent = (left, left + width, top + height, top)
    magnitude = filter_magnitude(level.filter, level.prediction.shape[-2:])
    image = axis.imshow(magnitude, extent=extent, cmap='magma', aspect='equal')
    axis.figure.colorbar(image, ax=axis, fraction=0.046)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(False)
    _title(axis, f'{level.title}\n{height}x{width} frequencies')
    _count(axis)


def _draw_spectra(axis: Axes, level: LevelMaps, before: LevelMaps | None) -> None:
    spectrum = radial_spectrum
    axis.plot(spectrum(level.teacher), color=COLORS[0], label='teacher')
    axis.plot(spectrum(level.student), color=COLORS[3], linestyle=':', label='student')
    if before is not None:
        label = 'prediction, before training'
        line = spectrum(before.prediction)
        axis.plot(line, color=COLORS[1], linestyle='-.', label=label)
    label = 'prediction' if before is None else 'prediction, after training'
    axis.plot(spectrum(level.prediction), color=COLORS[2], linestyle='--', label=label)
    axis.set_yscale('log')


def _explain(figure: Figure, axis: Axes) -> None:
    """What the lines of one panel mean, for all of them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper left', ncols=len(labels))


def _count(axis: Axes) -> None:
    axis.set_xlabel('cycles per image')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
