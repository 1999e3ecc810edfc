# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A run overwrites no config that it was made of, nor that of a training."""

import os

import pytest
from mmengine.config import Config

from mmfakd.engine.config_dump import TEACHER, TEST, name_dump, trained_name
from mmfakd.engine.launch import test as evaluate
from mmfakd.engine.launch import train
from tests.helpers.tiny_runs import distillation, run_config, save_teacher


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A config, beside what it inherits."""
    (tmp_path / 'base.py').write_text('a = 1\n')
    (tmp_path / 'own.py').write_text("# Mine.\n_base_ = './base.py'\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'own.py'


def dumped(config, work_dir, run=''):
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir)
    name_dump(cfg, run)
    assert '_filename' not in cfg
    return os.path.basename(cfg.filename)


def test_a_work_dir_of_its_own(own):
    for name in ('own.py', 'base.py'):
        assert dumped(name, 'run') == name
    assert dumped(own, 'run', TEST) == 'own.test.py'
    assert dumped(own, 'run', TEACHER) == 'own.teacher.py'
    # That of the training before is no source.
    (own.parent / 'run').mkdir()
    (own.parent / 'run' / 'own.py').write_text('a = 1\n')
    assert dumped(own, 'run') == 'own.py'


def test_the_folder_of_the_config(own):
    for name in (own, 'own.py'):
        assert dumped(name, '.') == dumped(name, own.parent) == 'own.dump.py'
        assert dumped(name, '.', TEST) == 'own.test.py'
    (own.parent / 'link').symlink_to(own.parent)
    assert dumped(own, 'link') == 'own.dump.py'
    # A dump that is trained itself.
    (own.parent / 'own.dump.py').write_text('a = 1\n')
    assert dumped('own.dump.py', '.') == 'own.dump.dump.py'
    (own.parent / 'own.test.py').write_text('a = 1\n')
    assert dumped('own.test.py', '.', TEST) == 'own.test.test.py'


def test_a_link_is_not_written_through(own):
    (own.parent / 'run').mkdir()
    for name in ('own.py', 'own.dump.py', 'own.test.py'):
        (own.parent / 'run' / name).symlink_to(own.parent / 'victim.py')
    assert dumped(own, 'run') == 'own.dump.dump.py'
    assert dumped(own, 'run', TEST) == 'own.test.test.py'


def test_what_it_inherits(own):
    """A config of one name may inherit another of that name."""
    (own.parent / 'mine').mkdir()
    (own.parent / 'mine' / 'base.py').write_text("_base_ = '../base.py'\n")
    assert dumped('mine/base.py', '.') == 'base.dump.py'


def test_other_formats_and_no_file(own):
    (own.parent / 'own.json').write_text('{"a": 1}')
    assert dumped('own.json', '.') == 'own.dump.json'
    cfg = Config(dict(work_dir='.'))
    name_dump(cfg)
    assert cfg.filename is None


def test_names_of_trainings():
    names = ['a/own.py', 'own.dump.py', 'own.dump.dump.py', 'own_0.5x.py', 'test.py']
    read = ['own', 'own', 'own', 'own_0.5x', 'test']
    assert list(map(trained_name, names)) == read
    for name in ('own.test.py', 'own.teacher.py', '20260101_000000.py'):
        assert trained_name(name) is None


def test_a_training_in_the_folder_of_its_config(own):
    """Resumed, and its student tested there: each has a config of its own."""
    model = distillation(save_teacher(own.parent))
    hooks = [dict(type='mmfakd.StudentCheckpointHook')]
    cfg = run_config('.', model, epochs=1, validate=True, hooks=hooks)
    cfg.dump(own.parent / 'base.py')
    before = {name: (own.parent / name).read_text() for name in ('own.py', 'base.py')}
    train('own.py', work_dir='.')()
    train('own.py', work_dir='.', resume='auto')()
    trained = (own.parent / 'own.dump.py').read_text()
    assert 'FeatureDistill' in trained and Config.fromfile('own.dump.py').resume
    evaluate('own.py', 'epoch_1_student.pth', work_dir='.')()
    assert (own.parent / 'own.dump.py').read_text() == trained
    assert 'FeatureDistill' not in (own.parent / 'own.test.py').read_text()
    for name, text in before.items():
        assert (own.parent / name).read_text() == text
    assert sorted(path.name for path in own.parent.glob('*.py')) == [
        *('base.py', 'own.dump.py', 'own.py', 'own.test.py')
    ]
