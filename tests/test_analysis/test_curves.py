# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Curves of trainings, on logs that real ones wrote."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from mmfakd.analysis.compare_runs import compare
from mmfakd.analysis.comparison_table import format_table
from mmfakd.analysis.curves import draw_curves, save_curves
from mmfakd.pictures.line_figures import keep_apart
from tests.helpers.compared_runs import TOP1, variant


def test_curves(methods, run):
    """A line per method, the mean of its seeds, within the band of its seeds."""
    comparison = compare(methods, teacher=variant(run, [98.0]))
    figure = draw_curves(comparison)
    [score, loss] = figure.axes
    for axis, key in ((score, 'curve'), (loss, 'losses')):
        lines = {line.get_label(): line for line in axis.lines}
        assert set(lines) - {'teacher'} == {'alone', 'fam'}
        bands = dict(zip(('alone', 'fam'), axis.collections))
        for method in comparison['methods']:
            name = method['method']
            values = np.array([[y for _, y in run[key]] for run in method['runs']])
            assert list(lines[name].get_xdata()) == [1, 2, 3]
            np.testing.assert_allclose(lines[name].get_ydata(), values.mean(0))
            [path] = bands[name].get_paths()
            low, high = path.get_extents().get_points()[:, 1]
            assert (low, high) == pytest.approx((values.min(), values.max()))
        written = {text.get_text(): text.get_color() for text in axis.texts}
        assert written == {name: line.get_color() for name, line in lines.items()}
        looks = [(lines[n].get_color(), lines[n].get_linestyle()) for n in methods]
        assert looks[0][0] != looks[1][0] and looks[0][1] != looks[1][1]
        assert axis.get_xlabel() == 'epoch'
    assert TOP1 in score.get_ylabel() and 'loss' in loss.get_ylabel()
    [teacher] = [line for line in score.lines if line.get_label() == 'teacher']
    assert set(teacher.get_ydata()) == {98.0}
    assert loss.get_yscale() == 'log'


def test_labels_keep_their_distance(run):
    """Methods that end at the same score: each label on a line of its own."""
    ours = {f'method {i}': [variant(run, [10, 50 + i / 1000])] for i in range(7)}
    figure = draw_curves(compare(ours))
    figure.draw_without_rendering()
    # Without the line that leads from the curve to the text.
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    boxes.sort(key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in zip(boxes, boxes[1:]))
    assert len({line.get_color() for line in figure.axes[0].lines}) == 7


@pytest.mark.parametrize('name', ['kd', 'fakd_review_r18w32_r18w4_1xb50_digits'])
def test_long_names_leave_room_for_the_curves(name, run):
    figure = draw_curves(compare({name: [run]}))
    figure.draw_without_rendering()
    for axis in figure.axes:
        box = axis.get_window_extent()
        assert 1.5 < box.width / figure.dpi < 2.5
        [text] = axis.texts
        assert text.get_window_extent().x1 <= figure.bbox.x1


def test_labels_move_no_farther_than_needed():
    """Two in each other's way move apart equally, the third stays."""
    spread = keep_apart([0.1, 0.50, 0.54], gap=0.1)
    assert spread == pytest.approx([0.1, 0.47, 0.57])
    # Pushed together, the pool meets the first.
    spread = keep_apart([0.45, 0.50, 0.51], gap=0.1)
    mean = (0.45 + 0.40 + 0.31) / 3
    assert spread == pytest.approx([mean, mean + 0.1, mean + 0.2])


@pytest.mark.parametrize('name', [r'$\bad$', 'a|b', 'two\nlines', '_x'])
def test_names_with_signs_of_their_own(name, run, tmp_path):
    """They are no formula in the picture, and no cell or row more in the table."""
    comparison = compare({name: [run], 'other': [variant(run, [1, 2, 3])]})
    figure = draw_curves(comparison)
    figure.draw_without_rendering()
    assert figure.axes[0].texts[-1].get_text() == name
    save_curves(comparison, f'{tmp_path}/curves.svg')
    table = format_table(comparison).partition('\n\n')[0].splitlines()
    assert len(table) == 4
    assert len({len(re.findall(r'(?<!\\)\|', line)) for line in table}) == 1


def test_only_scores_are_drawn_without_losses(run):
    """And no line for a teacher that was not validated."""
    teacher = replace(run, scores={})
    figure = draw_curves(compare({'alone': [replace(run, losses={})]}, teacher=teacher))
    assert len(figure.axes) == 1 and len(figure.axes[0].lines) == 1


def test_epochs_and_iterations_share_no_axis(run):
    other = replace(run, unit='iteration')
    comparison = compare({'alone': [run], 'ours': [other]})
    with pytest.raises(ValueError, match='alone counts epochs, ours iterations'):
        draw_curves(comparison)


def test_nothing_to_draw(run):
    teacher, blind = run, replace(run, scores={})
    with pytest.raises(ValueError, match='no run to draw'):
        draw_curves(compare({'alone': [blind]}, teacher=teacher))


@pytest.mark.parametrize('count', [1, 5, 11, 13])
def test_names_stay_within_the_figure(count):
    """Curves that end at the top, as those of accuracy do, or at the bottom."""
    for end in (0.0, 1.0):
        places = keep_apart([end] * count, gap=0.1)
        beyond = max(0, (count - 1) * 0.1 - 1) / 2
        assert min(places) >= -beyond - 1e-9 and max(places) <= 1 + beyond + 1e-9
        assert all(b - a >= 0.1 - 1e-9 for a, b in zip(places, places[1:]))
