# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What `package::config` names is found as before, with each file read once."""

import os

import pytest
from mmengine.config import Config, utils
from mmengine.fileio import load
from mmengine.fileio.handlers.yaml_handler import YamlHandler
from mmengine.hub import get_config

from mmfakd.compat import remember_model_index

RESNET = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'


@pytest.fixture
def package(tmp_path):
    """An installed package with one model, and what finds its entry."""
    (tmp_path / '.mim').mkdir()
    (tmp_path / '.mim/model-index.yml').write_text('Import: [metafile.yml]')
    metafile = tmp_path / '.mim/metafile.yml'
    metafile.write_text('Models: [{Name: a, Config: configs/a.py}]')
    return metafile, lambda name: utils._get_cfg_metainfo(str(tmp_path), name)


def test_same_entry_as_without(package):
    _, find = package
    assert find('a.py') == dict(Name='a', Config='configs/a.py')
    with pytest.raises(ValueError, match='got b.py'):
        find('b.py')


def test_files_are_read_once(monkeypatch):
    get_config(RESNET, pretrained=True)

    def read(*args, **kwargs):
        raise AssertionError('read again')

    monkeypatch.setattr(YamlHandler, 'load_from_fileobj', read)
    again = get_config(RESNET, pretrained=True)
    assert again.model_path.endswith('resnet18_8xb32_in1k_20210831-fbbb1da6.pth')
    assert Config.fromfile(again.filename).model.backbone.depth == 18


@pytest.mark.parametrize('later', [0, 1])
def test_changed_files_are_read_again(later, package):
    metafile, find = package
    assert find('a.py')['Name'] == 'a'
    before = metafile.stat()
    metafile.write_text('Models: [{Name: second, Config: configs/a.py}]')
    # With the clock of the disk, or by its length alone.
    times = before.st_atime_ns, before.st_mtime_ns + later * 1_000_000_000
    os.utime(metafile, ns=times)
    assert find('a.py')['Name'] == 'second'


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'model-index\.yml'):
        utils._get_cfg_metainfo(str(tmp_path), 'a.py')


def test_applied_once():
    before = utils.load
    remember_model_index()
    assert utils.load is before
    assert before.__wrapped__ is load
