# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd env` speaks of every environment, most of all of a broken one."""

import runpy
import sys

import mmengine
import pytest
import torch

from mmfakd import __version__
from mmfakd.compat.environment import describe_environment
from mmfakd.compat.families import STOCK, families_in
from mmfakd.compat.versions import installed_versions
from tests.helpers.packages import write_metadata

COMMAND = """
import runpy, sys
sys.argv = ['mmfakd', 'env']
runpy.run_module('mmfakd', run_name='__main__')
"""


(FAMILY,) = families_in(installed_versions())
MMENGINE = FAMILY.requirements[0].name


def rows(text):
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def test_what_an_issue_report_needs():
    text = describe_environment()
    found = rows(text)
    assert found['mmfakd'].startswith(f'{__version__} in ')
    assert found['torch'] == torch.__version__.partition('+')[0]
    assert found[MMENGINE] == mmengine.__version__
    assert found['family'] == f'{FAMILY.name}: {FAMILY.title}'
    assert 'CUDA available' in text and 'GCC' in text
    assert text.endswith('\n\nGates: everything fits.')
    # Fits into an issue: no page on how torch was compiled.
    assert 'compiling details' not in text
    assert len(text.splitlines()) < 40


def test_command_prints_it(run_python):
    assert 'Gates: everything fits.' in run_python(COMMAND).stdout


@pytest.mark.skipif(FAMILY is not STOCK, reason='two flavours are of one family')
def test_refused_environment_is_described(run_python, tmp_path):
    site = tmp_path / 'site'
    write_metadata(site, 'mmcv', '2.1.0')
    write_metadata(site, 'mmcv-lite', '2.1.0')
    write_metadata(site, 'mmdet', '2.28.2')
    text = run_python(COMMAND, site).stdout
    assert rows(text)['mmdet'] == '2.28.2'
    assert 'Gates: mmfakd cannot run here:\n- mmcv 2.1.0 and mmcv-lite 2.1.0' in text
    assert '- mmdet 2.28.2 is installed; mmdet>=3.3.0,<3.4.0 is wanted' in text
    # Other commands are refused as ever.
    process = run_python(COMMAND.replace("'env'", "'configs'"), site, check=False)
    assert 'cannot run in this environment' in process.stderr


def test_mixed_families_are_described(run_python, tmp_path):
    site = tmp_path / 'site'
    write_metadata(site, 'mmengine', '0.10.7')
    write_metadata(site, 'onedl_mmengine', '0.10.12')
    text = run_python(COMMAND, site).stdout
    assert rows(text)['onedl-mmengine'] == '0.10.12'
    assert rows(text)['family'].startswith('stock: ')
    assert ' and onedl: ' in rows(text)['family']
    assert 'Gates: mmfakd cannot run here:\n- two families of libraries are' in text


@pytest.mark.parametrize('library', ['torch', 'mmengine'])
def test_library_that_cannot_be_imported(library, run_python, tmp_path):
    package = tmp_path / 'site' / library
    package.mkdir(parents=True)
    (package / '__init__.py').write_text("raise OSError('libcudart.so: not found')\n")
    text = run_python(COMMAND, tmp_path / 'site').stdout
    assert rows(text)[MMENGINE] == mmengine.__version__
    assert 'does not work: OSError: libcudart.so: not found' in text


def test_version_that_is_none(run_python, tmp_path):
    write_metadata(tmp_path / 'site', 'torch', 'unknown')
    text = run_python(COMMAND, tmp_path / 'site').stdout
    assert 'cannot run here:\n- torch unknown is installed; torch>=2.1 is' in text
    assert rows(text)['torch'] == 'unknown'


def test_module_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmfakd', 'env'])
    runpy.run_module('mmfakd', run_name='__main__')
    assert 'Gates: everything fits.' in capsys.readouterr().out
