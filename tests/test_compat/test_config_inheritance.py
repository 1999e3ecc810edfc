# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd::` works in configs and in mmengine.hub, however mmfakd is installed."""

import shutil
from pathlib import Path

import mmengine.hub
import mmengine.utils
import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

import mmfakd
from mmfakd.compat import register_config_package

PACKAGE = Path(mmfakd.__file__).parent

CONFIG = """
default_scope = 'mmfakd'
model = dict(type='FrequencyAttention', in_channels=2, out_channels=3, size=8)
"""
METAFILE = """
Models:
  - Name: demo
    Config: configs/fakd/demo.py
    Weights: https://example.org/demo.pth
"""


@pytest.fixture
def installed(tmp_path):
    """A folder with a copy of mmfakd and a `.mim` folder of two small configs."""
    site = tmp_path / 'site'
    shutil.copytree(
        PACKAGE, site / 'mmfakd', ignore=shutil.ignore_patterns('.mim', '__pycache__')
    )
    mim = site / 'mmfakd' / '.mim'
    (mim / 'configs' / 'fakd').mkdir(parents=True)
    (mim / 'configs' / 'fakd' / 'demo.py').write_text(CONFIG)
    (mim / 'configs' / 'fakd' / 'no_metafile.py').write_text(CONFIG)
    (mim / 'configs' / 'fakd' / 'metafile.yml').write_text(METAFILE)
    (mim / 'model-index.yml').write_text('Import:\n  - configs/fakd/metafile.yml\n')
    return site


def make_editable(site, tmp_path):
    """Metadata in another folder than the package, as an editable install has."""
    metadata = tmp_path / 'other' / 'mmfakd-0.1.0.dist-info' / 'METADATA'
    metadata.parent.mkdir(parents=True)
    metadata.write_text('Metadata-Version: 2.1\nName: mmfakd\nVersion: 0.1.0\n')
    return [site, tmp_path / 'other']


@pytest.mark.parametrize('editable', [False, True])
def test_inheritance_and_hub(editable, installed, run_python, tmp_path):
    """In both kinds of install, whether mmengine.hub is imported late or early."""
    pytest.importorskip('mmpretrain')
    for name in ('demo', 'no_metafile'):
        (tmp_path / f'{name}.py').write_text(
            f"_base_ = ['mmfakd::fakd/{name}.py']\nmodel = dict(groups=1)\n"
        )
    run_python(
        f"""
if {editable}:
    import mmengine.hub
import mmfakd
from mmengine.config import Config
from mmengine.hub import get_config, get_model

for name in ('demo', 'no_metafile'):
    model = Config.fromfile(name + '.py').model
    assert model.groups == 1 and model.type == 'FrequencyAttention', model
    assert model._scope_ == 'mmfakd', model

config = get_config('mmfakd::fakd/demo.py', pretrained=True)
assert config.model_path == 'https://example.org/demo.pth'
assert get_config('mmfakd::fakd/no_metafile.py').model == config.model
assert type(get_model('mmfakd::fakd/demo.py')).__name__ == 'FrequencyAttention'
""",
        *(make_editable(installed, tmp_path) if editable else [installed]),
    )


def test_without_installation_the_message_says_what_to_do(installed, run_python):
    shutil.rmtree(installed / 'mmfakd' / '.mim')
    process = run_python(
        """
import mmfakd, mmengine.hub
mmengine.hub.get_config('mmfakd::fakd/demo.py')
""",
        installed,
        check=False,
    )
    assert 'FileNotFoundError' in process.stderr
    assert f'the folder {installed / "configs"} with the configs' in process.stderr
    assert '`pip install -e .`' in process.stderr


def test_only_our_own_name_is_answered():
    assert MODULE2PACKAGE['mmfakd'] == 'mmfakd'
    for name in ('mmengine', 'mmrazor'):
        path = mmengine.utils.get_installed_path(name)
        assert path == str(Path(__import__(name).__file__).parent)


def test_shim_is_repeatable():
    before = mmengine.utils.get_installed_path
    assert mmengine.hub.hub.get_installed_path is before
    register_config_package()
    assert mmengine.utils.get_installed_path is before
    assert mmengine.hub.hub.get_installed_path is before


def test_other_packages_are_still_refused(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("_base_ = ['unknown::folder/config.py']\n")
    with pytest.raises(AssertionError, match='does not support to load unknown'):
        Config.fromfile(config)
