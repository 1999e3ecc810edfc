# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A config that cannot be read is told in a sentence, by every command."""

import re

import pytest

from mmfakd import cli
from mmfakd.model_zoo.read_config import read_config

NAME = 'fakd_review_r18w32_r18w4_1xb50_digits'
# What is wrong -> what is said of it; the file `name.py` has its error in line 2.
BROKEN = {
    'syntax.py': ('a = (\n', 'SyntaxError: .* never closed|SyntaxError: .*EOF'),
    'name.py': ('a = 1\nb = foo\n', r"NameError: .*'foo'.* \(.*name.py, line 2\)"),
    'below.py': ("_base_ = 'name.py'\n", r'NameError: .* \(.*name.py, line 2\)'),
    'base.py': ("_base_ = 'gone.py'\n", 'FileNotFoundError: .*gone.py'),
    'reference.py': ("_base_ = 'fine.py'\nb = {{_base_.x}}\n", "KeyError: 'x'"),
    'number.py': (
        f"_base_ = 'mmfakd::{NAME}'\n"
        "model = dict(distiller=dict(loss_weight=dict(type='balance')))\n",
        'TypeError: loss_weight=.* cannot inherit from base .*`_delete_=True`',
    ),
    'pure.py': (
        'from mmengine.config import read_base\n\n'
        'with read_base():\n    from .gone import *\n',
        'ConfigParsingError: gone.py not found',
    ),
    'values.json': ('{"a": ', 'JSONDecodeError: '),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'fine.py').write_text('a = 1\n')
    for name, (text, _) in BROKEN.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_wrong_is_told(name, folder):
    with pytest.raises(ValueError) as error:
        read_config(name)
    text = str(error.value)
    assert text.startswith(f'The config {name} cannot be read: ')
    assert re.search(BROKEN[name][1], text)


def test_a_config_that_is_right(folder):
    assert read_config('fine.py').a == 1
    (folder / 'imports.py').write_text("custom_imports = dict(imports=['no_such'])\n")
    with pytest.raises(ImportError, match='no_such'):
        read_config('imports.py')


@pytest.mark.parametrize('model', [5, [1], 'resnet18'])
def test_a_model_that_is_no_config(model, folder):
    (folder / 'model.py').write_text(f'model = {model!r}\n')
    with pytest.raises(ValueError, match=r'model\.py has model = .*; expected a dict'):
        read_config('model.py')


@pytest.mark.parametrize(
    'command',
    [
        'train number.py',
        'test number.py gone.pth',
        'check number.py',
        'check-teacher number.py',
        'detections number.py gone.pth',
        'plot number.py gone.pth -o x.png',
        'pair number.py resnet18_8xb32_in1k -o x.py',
        'layers number.py',
        'configs show number.py',
        'configs copy number.py -o x.py',
        'benchmark --suite step --config number.py',
    ],
)
def test_commands(command, folder):
    with pytest.raises(SystemExit, match='The config number.py cannot be read: TypeE'):
        cli.main(command.split())
    assert not (folder / 'x.py').exists()
