# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The package as others install it: wheel, source archive, editable."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAF = 'fakd/digits/fakd_review_r18w32_r18w4_1xb50_digits.py'


def copy_sources(target):
    """What a clone contains, as far as the build reads it."""
    unwanted = shutil.ignore_patterns(
        '.*', 'build', 'dist', 'data', 'tests', 'docs', 'work_dirs', '*.egg-info',
        '__pycache__',
    )  # fmt: skip
    return Path(shutil.copytree(ROOT, target, ignore=unwanted))


def build(source, hook, target):
    """Calls a hook of the build backend, as pip does; returns what it made."""
    target.mkdir(exist_ok=True)
    code = f'from setuptools.build_meta import *; print({hook}({str(target)!r}))'
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=source, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return target / result.stdout.split()[-1]


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_of(folder):
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob('*')
        if path.is_file()
        and '__pycache__' not in path.parts
        and '.mim' not in path.parts
    }


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    return build(copy_sources(folder / 'source'), 'build_wheel', folder / 'dist')


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """A folder with the wheel installed, nothing else."""
    target = tmp_path_factory.mktemp('site')
    options = ['--no-deps', '--no-index', '--quiet', '--target', str(target)]
    command = [sys.executable, '-m', 'pip', 'install', *options, str(wheel)]
    subprocess.run(command, check=True)
    return target


def test_wheel_holds_modules_and_mim(wheel):
    found = contents(wheel)
    modules = {name for name in files_of('mmfakd') if name.endswith('.py')}
    mim = files_of('configs') | files_of('tools') | {'model-index.yml'}
    # These need the checkout around them.
    left_out = {f'tools/{n}.sh' for n in ('install', 'quickstart', 'run_tests')}
    assert left_out < mim
    mim -= left_out
    assert len(modules) > 20
    assert modules <= set(found)
    assert {f'mmfakd/.mim/{name}' for name in mim} <= set(found)
    for name in mim:
        assert found[f'mmfakd/.mim/{name}'] == (ROOT / name).read_bytes()
    beside = [name for name in found if name not in modules]
    assert {name for name in beside if name.startswith('mmfakd/')} == {
        'mmfakd/py.typed',
        *(f'mmfakd/.mim/{name}' for name in mim),
    }
    tops = {name.split('/')[0] for name in found}
    assert {top for top in tops if not top.endswith('.dist-info')} == {'mmfakd'}


def test_source_archive_builds_the_same_wheel(wheel, tmp_path):
    sdist = build(copy_sources(tmp_path / 'source'), 'build_sdist', tmp_path / 'dist')
    shutil.unpack_archive(sdist, tmp_path / 'unpacked')
    (source,) = (tmp_path / 'unpacked').iterdir()
    assert not (source / 'mmfakd' / '.mim').exists()
    again = contents(build(source, 'build_wheel', tmp_path / 'again'))
    assert set(again) == set(contents(wheel))


def test_removed_config_leaves_the_next_build(tmp_path):
    source = copy_sources(tmp_path / 'source')
    name = f'mmfakd/.mim/configs/{LEAF}'
    assert name in contents(build(source, 'build_wheel', tmp_path / 'first'))
    (source / 'configs' / LEAF).unlink()
    assert name not in contents(build(source, 'build_wheel', tmp_path / 'second'))


def test_editable_build_links_mim(tmp_path):
    source = copy_sources(tmp_path / 'source')
    for _ in range(2):  # the second finds the links of the first
        build(source, 'build_editable', tmp_path / 'dist')
    mim = source / 'mmfakd' / '.mim'
    assert (mim / 'model-index.yml').read_bytes()
    assert (mim / 'configs' / LEAF).samefile(source / 'configs' / LEAF)
    # Links within the tree, so that the tree may move.
    moved = source.rename(tmp_path / 'moved')
    (moved / 'configs' / 'new.py').write_text('a = 1')
    assert (moved / 'mmfakd' / '.mim' / 'configs' / 'new.py').exists()
    assert (moved / 'mmfakd' / '.mim' / 'tools' / 'train.py').exists()


def test_normal_wheel_after_editable_build_holds_files(tmp_path):
    source = copy_sources(tmp_path / 'source')
    build(source, 'build_editable', tmp_path / 'editable')
    found = contents(build(source, 'build_wheel', tmp_path / 'dist'))
    assert (
        found[f'mmfakd/.mim/configs/{LEAF}'] == (ROOT / 'configs' / LEAF).read_bytes()
    )


def test_requirements_never_bring_both_flavours_of_mmcv(wheel):
    found = contents(wheel)
    (name,) = (name for name in found if name.endswith('.dist-info/METADATA'))
    metadata = Parser().parsestr(found[name].decode())
    needed = metadata.get_all('Requires-Dist')
    unconditional = [line for line in needed if 'extra ==' not in line]
    assert any(line.startswith('mmengine') for line in unconditional)
    assert not any(line.startswith('mmcv') for line in unconditional)
    extras = metadata.get_all('Provides-Extra')
    assert {'all', 'det', 'docs', 'lite', 'mim', 'seg', 'tests'} <= set(extras)
    brings = {
        extra: {line.split('<')[0] for line in needed if f'"{extra}"' in line}
        & {'mmcv', 'mmcv-lite'}
        for extra in extras
    }
    assert {extra: flavours for extra, flavours in brings.items() if flavours} == {
        'mim': {'mmcv'},
        'lite': {'mmcv-lite'},
    }


def test_installed_package_serves_its_configs(site, tmp_path):
    code = f"""
import mmfakd
from mmengine.hub import get_config
from mmengine.utils import get_installed_path
from modelindex.load_model_index import load

print(get_installed_path('mmfakd'))
print(get_config('mmfakd::{LEAF}').filename)
index = load(get_installed_path('mmfakd') + '/.mim/model-index.yml')
print(*(model.name for model in index.models))
"""
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={'PYTHONPATH': str(site), 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    path, config, models = result.stdout.splitlines()[-3:]
    assert path == str(site / 'mmfakd')
    assert config == str(site / 'mmfakd' / '.mim' / 'configs' / LEAF)
    # mim finds a model by its config's name, which it lower-cases.
    assert Path(LEAF).stem in models.split()
    assert models == models.lower()


def test_installed_command_in_any_folder(wheel, site, tmp_path):
    (name,) = (n for n in contents(wheel) if n.endswith('entry_points.txt'))
    assert 'mmfakd = mmfakd.cli:main' in contents(wheel)[name].decode()

    def call(*words):
        command = [sys.executable, '-m', 'mmfakd', *words]
        environ = {'PYTHONPATH': str(site), 'PATH': ''}
        result = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    leaf = Path(LEAF).stem
    assert leaf in call('configs', 'list', '*digits*').split()
    call('configs', 'copy', leaf)
    assert "type='mmfakd.FeatureDistill'" in (tmp_path / f'{leaf}.py').read_text()
    assert str(site / 'mmfakd') in call('env')
