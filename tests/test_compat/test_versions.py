# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Version gates: found, wanted and what to do stand in the message."""

from pathlib import Path

import pytest

from mmfakd.compat.versions import (
    REQUIREMENTS,
    check_environment,
    find_problems,
    installed_versions,
)
from mmfakd.version import parse_version

GOOD = dict(
    python='3.11.7',
    torch='2.11.0+cu130',
    mmengine='0.10.7',
    mmcv='2.1.0',
    mmrazor='1.0.0',
    mmpretrain='1.2.0',
    mmdet='3.3.0',
    mmsegmentation='1.2.2',
    joblib='1.4.2',
    numpy='2.4.6',
    setuptools='81.0.0',
    pkg_resources='81.0.0',
)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        dict(torch='2.1.2', numpy='1.26.4'),
        dict(torch='2.1.0a0+32f93b1', numpy='1.24.4'),
        dict(torch='2.13.0+cpu', mmpretrain=None, mmdet=None, mmsegmentation=None),
        dict(torch='2.3.0', numpy='2.0.0'),
        {'mmcv': None, 'mmcv-lite': '2.1.0'},
        dict(python='3.9.0', setuptools='59.8.0'),
        dict(numpy=None),
    ],
)
def test_what_works_together(changes):
    assert find_problems(changed(changes)) == []


def changed(changes):
    """The good environment with versions replaced, or removed where None."""
    return {k: v for k, v in {**GOOD, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    'changes, parts',
    [
        (dict(python='3.8.18'), ['Python 3.8.18', 'python>=3.9']),
        (
            dict(torch='1.13.1', numpy='1.26.4'),
            ['torch 1.13.1 is installed', 'torch>=2.1 is wanted'],
        ),
        (dict(torch=None), ['torch is not installed', 'pip install "torch>=2.1"']),
        (dict(torch='2.1.2'), ['numpy 2.4.6', 'numpy<2 is wanted with torch 2.1.2']),
        (dict(mmengine='0.9.1'), ['mmengine 0.9.1', 'mmengine>=0.10.0,<0.11.0']),
        (dict(mmengine='0.11.0rc0'), ['mmengine 0.11.0rc0', '<0.11.0', 'inheriting']),
        (dict(mmcv='2.2.0'), ['mmcv 2.2.0', 'mmcv>=2.1.0,<2.2.0', 'mmcv-lite']),
        (dict(mmcv='1.7.2'), ['mmcv 1.7.2 is installed', 'mmcv>=2.1.0']),
        (dict(mmcv=None), ['mmcv is not installed', '"mmcv-lite>=2.1.0,<2.2.0"']),
        ({'mmcv': None, 'mmcv-lite': '2.2.0'}, ['mmcv-lite 2.2.0 is installed']),
        (
            {'mmcv-lite': '2.1.0'},
            [
                'mmcv 2.1.0 and mmcv-lite 2.1.0',
                'exactly one is wanted',
                '`pip uninstall -y mmcv mmcv-lite`',
            ],
        ),
        ({'mmcv-full': '1.7.2'}, ['mmcv 2.1.0 and mmcv-full 1.7.2']),
        (dict(mmrazor=None), ['mmrazor is not installed', 'mmrazor>=1.0.0,<1.1.0']),
        (dict(mmrazor='0.3.1'), ['mmrazor 0.3.1', 'mmrazor>=1.0.0']),
        (dict(joblib=None), ['joblib is not installed', 'mmrazor imports it']),
        (dict(mmpretrain='2.0.0'), ['mmpretrain 2.0.0', 'mmpretrain>=1.2.0,<1.3.0']),
        (dict(mmdet='2.28.2'), ['mmdet 2.28.2', 'mmdet>=3.3.0,<3.4.0']),
        (
            dict(mmsegmentation='0.30.0'),
            ['mmsegmentation 0.30.0', 'mmsegmentation>=1.2.2,<1.3.0'],
        ),
        (
            dict(setuptools='84.0.0', pkg_resources=None),
            ['setuptools 84.0.0 is', 'no pkg_resources', '"setuptools<82"'],
        ),
        (
            dict(setuptools=None, pkg_resources=None),
            ['setuptools is not installed', '"setuptools<82"'],
        ),
    ],
)
def test_problem_names_found_and_wanted_version_and_the_way_out(changes, parts):
    problems = find_problems(changed(changes))
    assert len(problems) == 1
    for part in parts:
        assert part in problems[0]


def test_all_problems_are_told_at_once():
    assert len(find_problems(changed(dict(torch='1.13.1', mmengine='0.9.0')))) == 3


@pytest.mark.parametrize('requirement', REQUIREMENTS, ids=lambda r: r.name)
def test_gate_equals_what_installation_asks_for(requirement):
    folder = Path(__file__).parents[2] / 'requirements'
    lines = ' '.join(path.read_text() for path in folder.glob('*.txt')).split()
    assert str(requirement) in lines


def test_versions_of_this_environment():
    versions = installed_versions()
    assert versions['torch'] and versions['mmengine'] and versions['python']
    # Either of the two, never both: the module name is the same.
    assert ('mmcv' in versions) != ('mmcv-lite' in versions)
    check_environment()


def install(folder, name, version):
    """Put the metadata of a distribution where an interpreter finds it."""
    metadata = folder / f'{name.replace("-", "_")}-{version}.dist-info' / 'METADATA'
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


def test_import_fails_with_the_message_before_anything_heavy(run_python, tmp_path):
    site = tmp_path / 'site'
    install(site, 'mmengine', '0.11.0rc0')
    install(site, 'mmdet', '2.28.2')
    code = """
import sys
try:
    import mmfakd
except ImportError as error:
    assert 'torch' not in sys.modules and 'mmengine' not in sys.modules
    print(error)
"""
    output = run_python(code, site).stdout
    assert 'mmengine 0.11.0rc0 is installed; mmengine>=0.10.0,<0.11.0 is' in output
    assert 'mmdet 2.28.2 is installed; mmdet>=3.3.0,<3.4.0 is wanted' in output
    assert 'cannot run in this environment' in output


def test_both_mmcv_are_refused(run_python, tmp_path):
    site = tmp_path / 'site'
    install(site, 'mmcv', '2.1.0')
    install(site, 'mmcv-lite', '2.1.0')
    process = run_python('import mmfakd', site, check=False)
    assert process.returncode
    assert 'mmcv 2.1.0 and mmcv-lite 2.1.0 are installed together' in process.stderr


def test_source_checkout_without_metadata_counts(run_python, tmp_path):
    """A library on PYTHONPATH is judged by its `__version__`."""
    package = tmp_path / 'site' / 'mmengine'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text("__version__ = '0.12.0'\n")
    code = """
from importlib import metadata
version = metadata.version
def without_mmengine(name):
    if name == 'mmengine':
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = without_mmengine
import mmfakd
"""
    process = run_python(code, tmp_path / 'site', check=False)
    assert 'mmengine 0.12.0 is installed; mmengine>=0.10.0,<0.11.0' in process.stderr


@pytest.mark.parametrize(
    'text, numbers',
    [
        ('2.1', (2, 1, 0)),
        ('2.11.0+cu130', (2, 11, 0)),
        ('2.1.0a0+git1', (2, 1, 0)),
        ('0.11.0rc0', (0, 11, 0)),
        ('65.5.0.post1', (65, 5, 0)),
        ('3', (3, 0, 0)),
        ('5.0.0.93', (5, 0, 0, 93)),
    ],
)
def test_parse_version(text, numbers):
    assert parse_version(text) == numbers


def test_parse_version_of_something_else():
    with pytest.raises(ValueError, match='"unknown" is not a version'):
        parse_version('unknown')
