# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the options of a run do to its config."""

import pytest
from mmengine.config import Config

from mmfakd.engine.launch import merge_launch_options, parse_cfg_options
from mmfakd.model_zoo.find import config_file

NAME = 'fakd_review_r18w32_r18w4_1xb50_digits'


@pytest.fixture(autouse=True)
def local_rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        (NAME, NAME),
        ('mmfakd::fakd/digits/' + NAME + '.py', NAME),
        ('regnetx-1.6gf_8xb128_in1k', 'regnetx-1.6gf_8xb128_in1k'),
    ],
)
def test_work_dir_is_named_after_the_config(config, name):
    cfg = Config.fromfile(config_file(config))
    assert cfg.get('work_dir') is None
    merge_launch_options(cfg)
    assert cfg.work_dir == f'./work_dirs/{name}'


def test_work_dir_of_a_path(tmp_path):
    path = tmp_path / 'folder' / 'my_0.5x.py'
    path.parent.mkdir()
    path.write_text('a = 1\n')
    cfg = Config.fromfile(config_file(str(path)))
    merge_launch_options(cfg)
    assert cfg.work_dir == './work_dirs/my_0.5x'
    merge_launch_options(cfg, cfg_options=['work_dir=here'])
    assert cfg.work_dir == 'here'
    merge_launch_options(cfg, work_dir='there', launcher='slurm')
    assert (cfg.work_dir, cfg.launcher) == ('there', 'slurm')


def test_overrides():
    pairs = ['a.b=1', 'c=[1,2]', "d='x=y'", 'e=None']
    assert parse_cfg_options(pairs) == {'a.b': 1, 'c': [1, 2], 'd': 'x=y', 'e': None}
    assert parse_cfg_options(None) == parse_cfg_options([]) == {}
    with pytest.raises(ValueError, match='--cfg-options a: expected KEY=VALUE'):
        parse_cfg_options(['b=1', 'a'])
