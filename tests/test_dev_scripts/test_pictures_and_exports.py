# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Tables and the gallery of pictures.md and export.md are what their scripts write."""

import json
import re

import export_table
import gallery
import picture_cost
import pytest
from matplotlib.figure import Figure
from PIL import Image


def between(pattern, page):
    [found] = pattern.finditer(page.read_text())
    return found[0]


def test_cost_is_the_log_s():
    log = json.loads(picture_cost.LOG.read_text())
    assert [row['config'] for row in log['pairs']] == [*picture_cost.CONFIGS]
    assert picture_cost.table(log) in between(picture_cost.TABLE, picture_cost.PAGE)


def test_exports_are_the_log_s():
    log = json.loads(export_table.LOG.read_text())
    assert list(log) == list(export_table.MODELS)
    assert export_table.table(log) in between(export_table.TABLE, export_table.PAGE)


def test_table_of_exports():
    log = dict(
        a=dict(input='batch x 3', onnx='1e-07, --dynamic auto', torchscript='no: why'),
        b=dict(onnx='no: why', torchscript='0.0e+00, --dynamic batch'),
    )
    rows = export_table.table(log).splitlines()
    assert rows[2:] == [
        '| `a` | batch x 3 | 1e-07 | no |',
        '| `b` | - | no | 0.0e+00, `--dynamic batch` |',
    ]


def test_gallery_is_that_of_the_script():
    page = between(gallery.GALLERY, gallery.PAGE)
    assert gallery.gallery() in page
    named = re.findall(r'\]\(figures/(gallery_\w+\.png)\)', page)
    there = sorted(path.name for path in gallery.FIGURES.glob('gallery_*'))
    assert sorted(named) == there and len(named) >= 9


def test_pictures_are_small(tmp_path):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    gallery.save(figure, tmp_path / 'a.png')
    with Image.open(tmp_path / 'a.png') as image:
        assert image.size == (144, 72) and image.mode == 'P'
    sizes = [path.stat().st_size for path in gallery.FIGURES.glob('gallery_*')]
    assert max(sizes) < 150_000 and sum(sizes) < 400_000


def test_runs_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='work_dirs/pictures/digits has no checkpoint'):
        gallery.draw('digits')
