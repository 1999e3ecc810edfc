# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Version gates: found, wanted and what to do stand in the message."""

import importlib
from pathlib import Path

import pytest

from mmfakd.compat import versions
from mmfakd.compat.families import COMMON, FAMILIES, ONEDL, STOCK, families_in
from mmfakd.compat.how_to_install import how_to_install
from mmfakd.compat.versions import (
    check_environment,
    find_problems,
    installed_versions,
)
from mmfakd.version import parse_version
from tests.helpers.packages import write_metadata

FOLDER = Path(__file__).parents[2] / 'requirements'

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
GOOD_ONEDL = {
    'python': '3.11.7',
    'torch': '2.14.1+cu130',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'mmrazor': '1.0.0',
    'onedl-mmpretrain': '1.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
    'joblib': '1.6.0',
    'numpy': '2.4.6',
    'setuptools': '84.2.1',
}


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


def changed(changes, good=GOOD):
    """The good environment with versions replaced, or removed where None."""
    return {k: v for k, v in {**good, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'onedl-mmcv': '2.3.0.post3', 'onedl-mmengine': '0.10.8'},
        {'onedl-mmpretrain': None, 'onedl-mmdetection': None},
        # Nobody needs pkg_resources there; where it is, it does no harm.
        dict(setuptools='80.8.0', pkg_resources='80.8.0'),
        dict(setuptools=None),
        # Of any family, and used by none of ours.
        {'openmim': '0.3.9'},
        {'onedl-mim': '0.5.1'},
    ],
)
def test_what_works_together_in_the_maintained_line(changes):
    assert find_problems(changed(changes, GOOD_ONEDL)) == []


@pytest.mark.parametrize(
    'changes, parts',
    [
        (
            {'onedl-mmengine': None},
            ['onedl-mmengine is not installed', '"onedl-mmengine>=0.10.8,<0.11.0"'],
        ),
        ({'onedl-mmcv': '2.4.0'}, ['onedl-mmcv 2.4.0', 'onedl-mmcv>=2.3.0,<2.4.0']),
        ({'onedl-mmcv': None}, ['pip install "onedl-mmcv>=2.3.0,<2.4.0"`']),
        ({'onedl-mmengine': '0.11.0'}, ['0.11.0 is installed', '<0.11.0 is wanted']),
        ({'onedl-mmpretrain': '1.4.0'}, ['onedl-mmpretrain>=1.3.0,<1.4.0']),
        ({'onedl-mmdetection': '3.6.0'}, ['onedl-mmdetection>=3.4.0,<3.6.0']),
        ({'onedl-mmsegmentation': '1.5'}, ['onedl-mmsegmentation>=1.3.0,<1.5.0']),
        (dict(torch='1.13.1', numpy='1.26.4'), ['torch>=2.1 is wanted']),
        (dict(torch='2.1.2'), ['numpy<2 is wanted with torch 2.1.2']),
    ],
)
def test_problems_of_the_maintained_line_name_its_libraries(changes, parts):
    (problem,) = find_problems(changed(changes, GOOD_ONEDL))
    for part in parts:
        assert part in problem
    assert 'mmcv-lite' not in problem and 'setuptools' not in problem


@pytest.mark.parametrize(
    'stock, onedl, reason',
    [
        ('mmengine', 'onedl-mmengine', "overwrite each other's files (mmengine)"),
        ('mmcv', 'onedl-mmcv', "overwrite each other's files (mmcv)"),
        ('mmcv-lite', 'onedl-mmcv', "overwrite each other's files (mmcv)"),
        ('mmdet', 'onedl-mmdetection', "overwrite each other's files (mmdet)"),
        ('mmpretrain', 'onedl-mmengine', 'do not work with those of the other'),
        ('mmsegmentation', 'onedl-mmcv', 'do not work with those of the other'),
    ],
)
def test_mixed_families(stock, onedl, reason):
    both = dict(python='3.11.7', torch='2.11.0', mmrazor='1.0.0', joblib='1.6.0')
    both.update({stock: '1.2.3', onedl: '4.5.6'})
    (problem,) = find_problems(both)
    assert problem.startswith(f'two families of libraries are mixed: {stock} 1.2.3 (st')
    assert f'{onedl} 4.5.6 (onedl' in problem and reason in problem
    assert f'`pip uninstall -y {stock} {onedl}`' in problem
    ways = problem.partition('then ')[2]
    assert '"mmengine>=0.10.0,<0.11.0" "mmcv-lite>=2.1.0,<2.2.0"' in ways
    assert '"onedl-mmengine>=0.10.8,<0.11.0" "onedl-mmcv>=2.3.0,<2.4.0"' in ways
    # What was there comes back.
    assert ('"onedl-mmdetection>=' in ways) == (stock == 'mmdet')
    assert ('"mmsegmentation>=' in ways) == (stock == 'mmsegmentation')


def test_no_family_at_all():
    (problem,) = find_problems(
        dict(python='3.11.7', torch='2.11.0', mmrazor='1.0.0', joblib='1.6.0')
    )
    assert problem.startswith('mmengine is not installed')
    for family in FAMILIES:
        assert f'{family.to_install()} ({family.title})' in problem
    assert '"setuptools<82"' in STOCK.to_install()
    assert 'setuptools' not in ONEDL.to_install()


def test_commands_of_problems_mend_them():
    """What is told to be installed is within the bounds of its own family."""
    for family in FAMILIES:
        command = family.to_install(frozenset({'mmdet', 'mmseg'}))
        for library in family.requirements:
            wanted = str(library).replace('"mmcv', '"mmcv-lite')
            wanted = wanted.replace('mmcv>=2.1', 'mmcv-lite>=2.1')
            assert f'"{wanted}"' in command


@pytest.mark.parametrize(
    'installed, command',
    [
        (GOOD, '`pip install "mmsegmentation>=1.2.2,<1.3.0" openmim`'),
        (GOOD_ONEDL, '`pip install "onedl-mmsegmentation>=1.3.0,<1.5.0" openmim`'),
        ({}, '`pip install "mmsegmentation>=1.2.2,<1.3.0" openmim`'),
    ],
)
def test_advice_on_libraries_is_that_of_the_family(installed, command, monkeypatch):
    module = 'mmfakd.compat.how_to_install'
    monkeypatch.setattr(f'{module}.installed_versions', lambda: installed)
    monkeypatch.setattr(f'{module}._has_operators', lambda: True)
    assert how_to_install('mmseg', 'openmim') == command
    monkeypatch.setattr(f'{module}._has_operators', lambda: False)
    told = how_to_install('mmseg', 'openmim')
    assert told.startswith(f'{command}, and mmcv with its compiled operators')
    assert 'operators' not in how_to_install('mmpretrain')


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


@pytest.mark.parametrize('requirement', COMMON, ids=lambda r: r.name)
def test_gate_equals_what_installation_asks_for(requirement):
    assert str(requirement) in (FOLDER / 'runtime.txt').read_text().split()


@pytest.mark.parametrize('family', FAMILIES, ids=lambda f: f.name)
def test_gates_of_a_family_equal_its_requirements(family):
    files = [*FOLDER.glob(f'{family.name}*.txt')]
    files += [FOLDER / 'mminstall.txt'] if family is STOCK else []
    lines = ' '.join(path.read_text() for path in files).split()
    for requirement in family.requirements:
        assert str(requirement) in lines
    # pip is capped where the gate is.
    assert ('setuptools<82' in lines) == family.needs_pkg_resources
    assert 'setuptools' not in (FOLDER / 'runtime.txt').read_text()


def test_versions_of_this_environment():
    found = installed_versions()
    (family,) = families_in(found)
    assert found['torch'] and found['python']
    # One distribution of mmcv, never two: the module name is the same.
    assert len([n for n in family.installed(found) if 'mmcv' in n]) == 1
    check_environment()


@pytest.fixture
def alone(tmp_path):
    """Start of a program that sees no distributions but those in a folder.

    Modules are found as ever: it is their metadata that the gates read.
    """
    site = tmp_path / 'site'
    site.mkdir()
    code = """
import sys
from importlib import metadata
everywhere = metadata.version
def version(name):
    for found in metadata.distributions(name=name, path=[{path!r}]):
        return found.version
    if name in ('torch', 'joblib', 'mmrazor', 'safetensors'):
        return everywhere(name)
    raise metadata.PackageNotFoundError(name)
metadata.version = version
find_spec = sys.modules['importlib.util'].find_spec
sys.modules['importlib.util'].find_spec = lambda name, *rest: (
    None if name in {hidden} else name == 'pkg_resources' or find_spec(name, *rest)
)
try:
    import mmfakd
except ImportError as error:
    heavy = {{'torch', 'mmengine', 'mmcv', 'mmpretrain'}} & sys.modules.keys()
    print(sorted(heavy), error)
"""

    def make(*distributions, hidden=()):
        for name, number in distributions:
            write_metadata(site, name, number)
        return code.format(path=str(site), hidden=hidden), site

    return make


LIBRARIES = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')


def test_import_fails_with_the_message_before_anything_heavy(run_python, alone):
    code, site = alone(
        ('mmengine', '0.11.0rc0'),
        ('mmcv', '2.1.0'),
        ('mmdet', '2.28.2'),
        hidden=LIBRARIES,
    )
    output = run_python(code, site).stdout
    assert output.startswith('[] mmfakd')
    assert 'mmengine 0.11.0rc0 is installed; mmengine>=0.10.0,<0.11.0 is' in output
    assert 'mmdet 2.28.2 is installed; mmdet>=3.3.0,<3.4.0 is wanted' in output
    assert 'cannot run in this environment' in output


def test_both_mmcv_are_refused(run_python, alone):
    code, site = alone(('mmcv', '2.1.0'), ('mmcv-lite', '2.1.0'), hidden=LIBRARIES)
    output = run_python(code, site).stdout
    assert 'mmcv 2.1.0 and mmcv-lite 2.1.0 are installed together' in output


def test_mixed_families_are_refused(run_python, alone):
    code, site = alone(
        ('mmcv_lite', '2.1.0'), ('onedl_mmengine', '0.10.12'), hidden=LIBRARIES[2:]
    )
    output = run_python(code, site).stdout
    assert output.startswith('[] mmfakd')
    assert 'are mixed: mmcv-lite 2.1.0 (stock: ' in output
    assert 'onedl-mmengine 0.10.12 (onedl: ' in output


def test_empty_environment_is_told_of_both_families(run_python, alone):
    code, site = alone(hidden=LIBRARIES)
    output = run_python(code, site).stdout
    assert output.startswith('[] mmfakd')
    assert output.count('\n- ') == 1
    assert 'mmengine is not installed, and none of the libraries around it' in output


@pytest.mark.parametrize(
    'version, wanted',
    [
        ('0.12.0', 'mmengine 0.12.0 is installed; mmengine>=0.10.0,<0.11.0'),
        # A checkout of the maintained line is known by its version.
        ('0.10.12', 'onedl-mmcv is not installed; onedl-mmcv>=2.3.0,<2.4.0'),
        (None, 'mmengine without a version is installed; mmengine>=0.10.0'),
        # It says so itself, and cannot be imported like that.
        ("version('onedl-mmengine')", 'onedl-mmengine without its metadata is inst'),
    ],
)
@pytest.mark.parametrize('file', ['version.py', '__init__.py'])
def test_source_checkout_without_metadata_counts(
    file, version, wanted, run_python, alone
):
    """A library on PYTHONPATH is judged by its files, and not imported."""
    code, site = alone(hidden=LIBRARIES[1:])
    (site / 'mmengine').mkdir()
    (site / 'mmengine' / '__init__.py').write_text('')
    value = version if '(' in str(version) else repr(version)
    line = '' if version is None else f'__version__ = {value}\n1 / 0\n'
    (site / 'mmengine' / file).write_text(line)
    output = run_python(code, site).stdout
    assert output.startswith('[] mmfakd')
    assert wanted in output


def test_folder_that_is_called_as_a_library_is_none(tmp_path, monkeypatch):
    """As `configs/mmdet` is in many working directories."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'called_as_a_library').mkdir()
    assert versions._source_version('called_as_a_library') is None
    (tmp_path / 'called_as_a_library' / '__init__.py').write_text("__version__ = '1'")
    importlib.invalidate_caches()
    assert versions._source_version('called_as_a_library') == '1'


def test_rest_of_an_interrupted_removal_is_nothing(run_python, alone):
    code, site = alone(('mmcv', '2.1.0'), ('mmengine', '0.10.7'), hidden=LIBRARIES[2:])
    (site / 'onedl_mmcv-2.3.6.dist-info').mkdir()
    run_python(f'{code}\nprint(mmfakd.__version__)', site)


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
