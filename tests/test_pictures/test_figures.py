# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Figures show the numbers that they are given."""

from dataclasses import replace

import numpy as np
import torch

from mmfakd.models.layers import FrequencyAttention
from mmfakd.pictures import figures
from mmfakd.pictures.attention import attention_maps, grey_images
from mmfakd.pictures.html_page import Section, html_page
from mmfakd.pictures.level_maps import LevelMaps
from mmfakd.pictures.spectra import filter_magnitude, radial_spectrum


def level(number, filter_=None):
    maps = [torch.rand(2, channels, 8, 8) for channels in (2, 3, 3)]
    return LevelMaps(f'loss_level{number}', f'layer{number}', *maps, filter_)


def test_attention_is_the_mean_square_from_0_to_1():
    feature = torch.zeros(2, 3, 4, 4)
    feature[0, 1, 1, 2] = -3
    feature[0, 0, 3, 3] = 1
    maps = attention_maps(feature, (4, 4))
    assert maps[0, 1, 2] == 1 and maps[0, 3, 3] == torch.tensor(1 / 9)
    assert maps[0].count_nonzero() == 2
    # Nothing stands out on the second.
    assert not maps[1].any()
    assert attention_maps(feature, (12, 8)).shape == (2, 12, 8)


def test_grey_images_have_all_their_range():
    images = grey_images(torch.randn(2, 3, 5, 6) * 7 + 3)
    assert images.shape == (2, 5, 6)
    assert images.amin((1, 2)).tolist() == [0, 0]
    assert images.amax((1, 2)).tolist() == [1, 1]


def test_overview():
    layer = FrequencyAttention(2, 3, size=8)
    levels, before = [level(0), level(1, layer)], [level(0), level(1)]
    figure = figures.draw_overview(levels, before)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    [image] = [image for axis in shown for image in axis.images if axis.get_title()]
    assert np.allclose(image.get_array(), filter_magnitude(layer))
    spectra = [axis for axis in shown if axis.lines]
    assert [axis.get_title() for axis in spectra] == [
        'level0: layer0',
        'level1: layer1',
    ]
    lines = {line.get_label(): line.get_ydata() for line in spectra[1].lines}
    for name, feature in (
        ('teacher', levels[1].teacher),
        ('student', levels[1].student),
        ('prediction, before training', before[1].prediction),
        ('prediction, after training', levels[1].prediction),
    ):
        assert np.allclose(lines[name], radial_spectrum(feature))


def test_filters_larger_than_the_map_are_blank_there():
    layer = FrequencyAttention(2, 3, modes=12)
    figure = figures.draw_filters([level(0, layer)])
    upper, lower = figure.axes[:2]
    magnitude = filter_magnitude(layer, (8, 8))
    shown = np.ma.filled(upper.images[0].get_array(), np.nan)
    assert np.allclose(shown, magnitude, equal_nan=True)
    assert 0 < np.isnan(shown).sum() < 12 * 12
    assert np.isfinite(lower.lines[0].get_ydata()).sum() == round(32**0.5) + 1
    figure.draw_without_rendering()


def test_gaps():
    levels, before = [level(0), level(1)], [level(1)]
    figure = figures.draw_gaps(levels, before)
    first, second = figure.axes
    assert [bar.get_height() for bar in first.patches] == [*levels[0].gaps().values()]
    heights = [bar.get_height() for bar in second.patches]
    assert heights == [*before[0].gaps().values(), *levels[1].gaps().values()]


def test_attention_has_a_row_for_each_role_and_a_column_for_each_level():
    levels = [level(0), level(1)]
    figure = figures.draw_attention(torch.rand(2, 1, 16, 8), levels, 2)
    assert len(figure.axes) == 2 * 3 * (1 + 2)
    # The prediction of the first level, on the first image.
    shown = figure.axes[4].images[1].get_array()
    assert np.allclose(shown, attention_maps(levels[0].prediction, (16, 8))[0])


def test_courses():
    courses = dict(one=dict(low={1: 0.5, 10: 0.25}), two=dict(low={1: 1.0}))
    figure = figures.draw_courses(courses, 'linear')
    [line] = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[1, 0.5], [10, 0.25]]
    assert figure.axes[0].get_ylim()[0] == 0
    assert figures.draw_courses(courses).axes[1].get_yscale() == 'log'


def test_many_courses_are_all_drawn_and_told_apart():
    many = {f'loss_{i}': {1: 1.0, 2: float(i)} for i in range(18)}
    lines = figures.draw_courses(dict(one=many)).axes[0].lines
    assert [line.get_label() for line in lines] == list(many)
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == 18
    assert {line.get_linestyle() for line in lines[:7]} == {'-'}


def test_names_are_no_formulas():
    """Users give losses and layers their names."""
    name = r'$\bad$'
    maps = [replace(level(0), name=name, layer=name)]
    courses = {name: {name: {1: 0.5, 10: 0.25}}}
    filters = [replace(level(0, FrequencyAttention(2, 3, size=8)), layer=name)]
    for figure in (
        figures.draw_spectra(maps),
        figures.draw_gaps(maps),
        figures.draw_overview(filters, maps),
        figures.draw_attention(torch.rand(2, 1, 8, 8), maps),
        figures.draw_courses(courses),
    ):
        assert any(name in axis.get_title() for axis in figure.axes)
        figure.draw_without_rendering()


def test_images_are_those_of_the_figure():
    image = figures.as_image(figures.draw_courses(dict(a=dict(b={1: 1.0}))))
    assert image.shape == (260, 300, 3) and image.dtype == np.uint8
    assert image.max() == 255 and image.min() < 100


def test_page_needs_no_other_file():
    figure = figures.draw_courses(dict(a=dict(b={1: 1.0})))
    rows = [['a', 'b'], ['<1>', '2']]
    page = html_page('T & t', 'One.\n\nTwo.', [Section('S', 'c < d', figure, rows)])
    assert '<title>T &amp; t</title>' in page and '<p>One.</p>\n<p>Two.</p>' in page
    assert '<p>c &lt; d</p>' in page and '<td>&lt;1&gt;</td><td>2</td>' in page
    assert page.count('src="data:image/png;base64,iVBOR') == page.count('<img ') == 1
    assert 'http' not in page and '<script' not in page
