# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of libraries in front of `::`, in both families, and none installs itself."""

import mmengine.hub
import mmengine.utils
import pytest
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import package_utils

from mmfakd.compat import config_packages, install_nothing, name_config_packages
from mmfakd.compat.how_to_install import how_to_install


@pytest.mark.parametrize(
    ('installed', 'names'),
    [
        ([], {'mmdet': 'mmdet', 'mmseg': 'mmsegmentation'}),
        (['mmengine', 'mmdet'], {'mmdet': 'mmdet', 'mmseg': 'mmsegmentation'}),
        (
            ['onedl-mmengine'],
            {
                'mmdet': 'onedl-mmdetection',
                'mmpretrain': 'onedl-mmpretrain',
                'mmseg': 'onedl-mmsegmentation',
            },
        ),
    ],
)
def test_names_are_those_of_the_family(installed, names, monkeypatch):
    for module in ('mmdet', 'mmpretrain', 'mmseg'):
        monkeypatch.setitem(MODULE2PACKAGE, module, 'unknown')
    monkeypatch.setattr(config_packages, '_is_distribution', installed.__contains__)
    before = {k: v for k, v in MODULE2PACKAGE.items() if v != 'unknown'}
    name_config_packages()
    assert {module: MODULE2PACKAGE[module] for module in names} == names
    assert {key: MODULE2PACKAGE[key] for key in before} == before


@pytest.mark.parametrize('module', ['mmpretrain', 'mmdet', 'mmseg'])
def test_installed_library_is_found(module, monkeypatch):
    library = pytest.importorskip(module)
    forbid(monkeypatch)
    package = MODULE2PACKAGE[module]
    mmengine.hub.hub.install_package(package)
    assert mmengine.utils.get_installed_path(package) == library.__path__[0]


def forbid(monkeypatch):
    def call(command):
        raise AssertionError(f'{command} was run')

    monkeypatch.setattr(package_utils, 'call_command', call)


@pytest.mark.parametrize('ask', ['get_config', 'get_model'])
def test_missing_library_is_named_not_installed(ask, monkeypatch):
    forbid(monkeypatch)
    monkeypatch.setitem(MODULE2PACKAGE, 'mmaction', 'mmaction2-that-is-not-there')
    with pytest.raises(ModuleNotFoundError) as error:
        getattr(mmengine.hub, ask)('mmaction::recognition/tsn.py')
    text = str(error.value)
    assert 'mmaction2-that-is-not-there is not installed' in text
    assert 'MMEngine would run pip now' in text
    assert '`pip install mmaction2-that-is-not-there`' in text


def test_advice_never_names_a_strangers_package():
    """mmaction is not what brings the module mmaction."""
    assert how_to_install('mmaction') == '`pip install mmaction2`'


def test_advice_has_the_bounds_of_our_libraries(monkeypatch):
    monkeypatch.setattr(package_utils, 'is_installed', lambda package: False)
    monkeypatch.setattr(mmengine.utils, 'is_installed', lambda package: False)
    with pytest.raises(ModuleNotFoundError, match='pip install ".*mmdet.*>=.*<'):
        mmengine.hub.get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')


def test_shim_is_repeatable():
    before = mmengine.utils.install_package
    assert mmengine.hub.hub.install_package is before
    install_nothing()
    assert mmengine.utils.install_package is before
