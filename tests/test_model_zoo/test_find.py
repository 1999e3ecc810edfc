# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which config a name stands for."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmfakd.model_zoo.find import (
    find_config,
    find_weights,
    read_metafile,
    zoo_configs,
)
from mmfakd.model_zoo.resolve import package_config

R18 = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'


@pytest.mark.parametrize(
    'name',
    [
        R18,
        R18[:-3],
        'mmpretrain::resnet18_8xb32_in1k',
        'resnet18_8xb32_in1k',
        'resnet18_8xb32_in1k.py',
        'ResNet18_8xb32_IN1k',
        'resnet/resnet18_8xb32_in1k.py',
    ],
)
def test_ways_to_name_a_config(name):
    assert find_config(name) == R18


def test_name_of_weights_that_another_config_is_for():
    """`3rdparty` in the model zoo: weights from elsewhere for a stock config."""
    config = find_config('swin-tiny_3rdparty_in1k')
    assert config == 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'
    assert find_weights(config, 'swin-tiny_3rdparty_in1k') == 'swin-tiny_3rdparty_in1k'
    assert find_weights(config) == 'swin-tiny_16xb64_in1k'


def test_files_stand_before_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('resnet18_8xb32_in1k').write_text('')
    assert find_config('resnet18_8xb32_in1k') == 'resnet18_8xb32_in1k'
    assert find_weights('resnet18_8xb32_in1k') is None


def test_configs_of_mmfakd_become_files():
    path = find_config('mmfakd::r20_1xb64_cifar100')
    assert path.endswith('fakd/cifar100/r20_1xb64_cifar100.py')
    assert Config.fromfile(path).model.backbone.type == 'mmfakd.CIFARResNet'


def test_folders_that_mmengine_cannot_name_become_files():
    pytest.importorskip('mmdet')
    path = find_config('mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py')
    assert Path(path).is_file()


def test_every_config_of_the_zoo_is_found():
    configs = [paths for paths in zoo_configs('mmpretrain').values()]
    assert len(configs) > 500
    for name in (
        'mobilenet-v2_8xb32_in1k',
        'deit-tiny_4xb256_in1k',
        'vgg16_8xb32_in1k',
    ):
        assert 'model' in package_config(find_config(name))


@pytest.mark.parametrize(
    ('name', 'near'),
    [
        ('resnet18_8xb32_in1', 'resnet18_8xb32_in1k'),
        ('resnet50', 'resnet50_8xb32_in1k'),
        ('resnt34_8xb32_in1k', 'resnet34_8xb32_in1k'),
        ('mmpretrain::resnet/resnet18_8xb32_in1.py', 'resnet/resnet18_8xb32_in1k.py'),
    ],
)
def test_unknown_names_list_near_ones(name, near):
    with pytest.raises(
        FileNotFoundError, match=f'neither a config.*Near names.*{near}'
    ):
        find_config(name)


def test_name_that_is_like_nothing():
    with pytest.raises(FileNotFoundError, match='Check the path'):
        find_config('work_dirs/nothing/of/the/kind.py')


def test_package_that_is_not_installed():
    with pytest.raises(ModuleNotFoundError, match="package 'mmnone' is not installed"):
        find_config('mmnone::resnet18_8xb32_in1k')


def test_name_of_several_configs():
    with pytest.raises(
        ValueError, match=r'2 configs: mmpretrain::beit/.*, .*::beitv2/'
    ):
        find_config('beit-base-p16_8xb64_in1k')


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('', 'no list of `Models`'),
        ('- a', 'no list of `Models`'),
        ('Models: {a: 1}', 'no list of `Models`'),
        ('a: [', 'node content'),
        ('a: \x00', 'unacceptable character|control characters are not allowed'),
    ],
)
def test_a_metafile_that_is_none(text, why, tmp_path):
    """It may lie beside one's own config, and be of something else."""
    path = tmp_path / 'metafile.yml'
    path.write_text(text)
    with pytest.warns(UserWarning, match=f'metafile.yml is left out: .*({why})'):
        assert read_metafile(path) == []


def test_a_metafile_in_part(tmp_path):
    path = tmp_path / 'metafile.yml'
    path.write_text('Models: [a, {Name: b, Config: c%20d.py, Weights: [x, y]}, {}]')
    assert read_metafile(path) == [dict(Name='b', Config='c d.py', Weights='x')]
    path.write_bytes(b'\xff\xfe')
    with pytest.warns(UserWarning, match="left out: 'utf-8' codec"):
        assert read_metafile(path) == []
    path.write_text('Collections: [{Name: a}]')
    assert read_metafile(path) == [] and read_metafile(tmp_path / 'gone.yml') == []
