# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What commands read is never overwritten, with --force neither."""

import pytest

from mmfakd import cli
from mmfakd.model_zoo.outputs import check_outputs, config_sources


def test_existing_files_and_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there').write_text('mine')
    (tmp_path / 'link').symlink_to('there')
    check_outputs(False, ['new', None], ['there', 'resnet18', 'https://a.b/c.pth'])
    check_outputs(True, ['there'], ['new', None])
    with pytest.raises(FileExistsError, match='there exists; .*--force'):
        check_outputs(False, ['new', 'there'])
    for name in ('there', './there', 'link', str(tmp_path / 'there')):
        with pytest.raises(FileExistsError, match='that this command reads'):
            check_outputs(True, [name], ['there'])


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


@pytest.mark.parametrize(
    'command',
    [
        'pair stud.py resnet18_8xb32_in1k -o stud.py',
        'pair stud.py resnet18_8xb32_in1k -o base.py',
        'pair resnet18_8xb32_in1k stud.py -o ./stud.py',
        'export a.pth a.pth',
        'export a.pth a.onnx --config stud.py --config-out base.py',
        'convert a.pth -o a.pth',
        'configs copy stud.py -o base.py',
    ],
)
def test_sources_of_commands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {'base.py': 'a = 1\n', 'stud.py': "_base_ = 'base.py'\n", 'a.pth': 'x'}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit, match='is a file that this command reads'):
        cli.main([*command.split(), '--force'])
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == files


def test_results_take_the_place_of_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.pkl').write_text('x')
    with pytest.raises(SystemExit, match='is a file that this command reads'):
        cli.main(['test', 'r18w4_1xb50_digits', 'a.pkl', '--out', 'a.pkl'])
