# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The configs that come with mmfakd: their names, their copies."""

import shlex
from pathlib import Path

import pytest
from mmengine.config import Config

from mmfakd import cli
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.shipped import config_names, copy_config, list_configs

ROOT = Path(__file__).resolve().parents[2]
NAME = 'fakd_review_r18w32_r18w4_1xb50_digits'
FILE = ROOT / 'configs/fakd/digits' / f'{NAME}.py'


def test_names_are_those_of_the_files():
    files = [file.stem for file in (ROOT / 'configs/fakd').rglob('*.py')]
    assert sorted(files) == config_names()
    assert len(set(files)) == len(files) > 200


def test_list(capsys):
    cli.main(['configs', 'list', '*r56*'])
    listed = capsys.readouterr().out.split()
    assert 'fakd_review_r56_r20_1xb64_cifar100' in listed
    assert all('r56' in name for name in listed)
    assert list_configs().split() == config_names()


def test_list_of_a_pattern_that_fits_nothing():
    with pytest.raises(SystemExit) as error:
        cli.main(['configs', 'list', 'fakd_review_r57_r20_1xb64_cifar100'])
    assert 'fakd_review_r56_r20_1xb64_cifar100' in str(error.value.code)


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', NAME.upper(), str(FILE)])
def test_config_of_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(config_file(name)).samefile(FILE)


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / f'{NAME}.py'
    own.write_text('a = 1')
    assert Path(config_file(f'{NAME}.py')).samefile(own)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert Path(config_file(f'~/{NAME}.py')).samefile(own)


def test_config_of_another_library():
    file = config_file('resnet18_8xb32_in1k')
    assert Config.fromfile(file).model.backbone.depth == 18
    assert config_file('mmpretrain::resnet/resnet18_8xb32_in1k.py') == file


def test_copy_is_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f'mmfakd train {NAME}.py' in copy_config(NAME)
    copy = Config.fromfile(f'{NAME}.py').to_dict()
    assert copy == Config.fromfile(FILE).to_dict()
    with pytest.raises(FileExistsError, match='--force'):
        copy_config(NAME)
    with pytest.raises(ValueError, match='mine: a config is a Python file'):
        copy_config(NAME, out='mine')
    copy_config(NAME, force=True)
    said = copy_config(NAME, out="my 'é'.py")
    assert Path("my 'é'.py").is_file()
    # As a shell takes it.
    assert shlex.split(said)[-3:] == ['mmfakd', 'train', "my 'é'.py"]


def test_show(capsys):
    cli.main(['configs', 'show', NAME])
    shown = Config.fromstring(capsys.readouterr().out, '.py')
    assert shown.to_dict() == Config.fromfile(FILE).to_dict()


def test_list_needs_no_library(run_python):
    run_python("""
import sys
from mmfakd.cli import main
main(['configs', 'list'])
heavy = {'torch', 'mmengine', 'numpy'} & set(sys.modules)
assert not heavy, heavy
""")
