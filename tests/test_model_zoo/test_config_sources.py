# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The files that a config is made of, and circles of them."""

import pytest

from mmfakd import cli
from mmfakd.model_zoo.config_sources import config_sources, find_circle
from mmfakd.model_zoo.read_config import read_config


def test_sources_of_a_config(tmp_path):
    """Bases of bases; those of packages are found, or are nobody's to overwrite."""
    (tmp_path / 'bases').mkdir()
    files = {
        'bases/first.py': 'a = 1\n',
        'bases/second.py': "_base_ = ['./first.py']\nb = 1\n",
        'text.py': "_base_ = 'bases/second.py'\n",
        'new.py': 'from mmengine.config import read_base\n'
        'with read_base():\n    from .bases.pure import *\n',
        'bases/pure.py': 'from mmengine.config import read_base\n'
        'with read_base():\n    from ..root import *\n',
        'root.py': 'from torch.optim import SGD\nc = dict(type=SGD)\n',
        'broken.py': '_base_ = [\n',
        'circle.py': "_base_ = 'circle.py'\n",
        'values.json': '{"_base_": "text.py"}',
        'stock.py': "_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def sources(name):
        found = config_sources(str(tmp_path / name))
        return sorted({(tmp_path / file).resolve().name for file in found})

    assert sources('text.py') == ['first.py', 'second.py', 'text.py']
    assert sources('new.py') == ['new.py', 'pure.py', 'root.py']
    assert sources('values.json') == [
        'first.py',
        *sources('text.py')[1:],
        'values.json',
    ]
    assert sources('broken.py') == ['broken.py']
    assert sources('circle.py') == ['circle.py']
    assert 'resnet18_8xb32_in1k.py' in sources('stock.py')


CIRCLES = {
    'self.py': ("_base_ = './self.py'\n", ['self.py', 'self.py']),
    'first.py': ("_base_ = ['second.py']\n", ['first.py', 'second.py', 'first.py']),
    'second.py': ("_base_ = 'first.py'\n", ['second.py', 'first.py', 'second.py']),
    'outside.py': ("_base_ = ['fine.py', 'self.py']\n", ['self.py', 'self.py']),
    'pure.py': (
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .pure import *\n',
        ['pure.py', 'pure.py'],
    ),
    'fine.py': ('a = 1\n', []),
    # Twice is no circle.
    'twice.py': ("_base_ = ['fine.py', 'again.py']\n", []),
    'again.py': ("_base_ = 'fine.py'\n", []),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, (text, _) in CIRCLES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize('name', CIRCLES)
def test_circles(name, folder):
    expected = [str(folder / file) for file in CIRCLES[name][1]]
    assert find_circle(name) == expected
    if expected:
        chain = ' -> '.join(expected)
        with pytest.raises(ValueError, match=f'{name} inherits itself: {chain}. Name'):
            read_config(name)


def test_commands_tell_of_a_circle(folder):
    """MMEngine makes a folder for each round, and some machines let it."""
    for command in ('layers self.py', 'configs show self.py', 'train self.py'):
        with pytest.raises(SystemExit, match='self.py inherits itself'):
            cli.main(command.split())
