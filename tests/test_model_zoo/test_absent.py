# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is said where a library that a model needs is not installed."""

from importlib.util import find_spec

import pytest
from mmengine.config import Config

from mmfakd.compat.how_to_install import how_to_install
from mmfakd.engine.check_config import check_training
from mmfakd.model_zoo.absent import absence, absent_libraries
from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.find import find_config


@pytest.fixture(autouse=True)
def without_mmdet(monkeypatch):
    """As where mmdet is not installed."""

    def find(name):
        return None if name == 'mmdet' else find_spec(name)

    for module in ('absent', 'find'):
        monkeypatch.setattr(f'mmfakd.model_zoo.{module}.find_spec', find)


@pytest.mark.parametrize(
    'cfg',
    [
        dict(default_scope='mmdet'),
        dict(model=dict(type='mmdet.RTMDet')),
        dict(model=dict(architecture=dict(type='RTMDet', _scope_='mmdet'))),
        dict(model=dict(teacher=dict(cfg_path='mmdet::gfl/gfl_r50_fpn_1x_coco.py'))),
        dict(pipelines=[[dict(type='mmdet/Resize')]]),
    ],
)
def test_what_a_config_names(cfg):
    assert absent_libraries(Config(cfg)) == ['mmdet']
    with pytest.raises(ModuleNotFoundError, match='mmdet is not installed .`pip inst'):
        check_training(Config(cfg))


def test_other_names_are_none():
    cfg = dict(type='mmdetector.Net', note='mmdet', default_scope='mmpretrain')
    assert absent_libraries(cfg) == []
    install = how_to_install('mmdet', 'mmseg')
    assert install.count('mm') >= 2
    assert (
        absence(['mmdet', 'mmseg']) == f'mmdet and mmseg are not installed ({install})'
    )


def test_unknown_name():
    with pytest.raises(FileNotFoundError, match='Other names are not .*mmdet'):
        find_config('retinanet_r18_fpn_1x_coco')


def test_model_of_a_missing_library():
    with pytest.raises(ModuleNotFoundError, match="'RetinaNet' cannot be built: mmdet"):
        build_without_weights(dict(type='RetinaNet'), 'mmdet')
