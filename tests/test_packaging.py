# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The package as others install it: wheel, source archive, editable."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from email.parser import Parser
from pathlib import Path

import pytest

from mmfakd.version import __version__
from tests.helpers.packages import ROOT, build, contents, copy_sources, install

# What a wheel has nothing of.
NOT_BUILT = ('tests', 'docs')
LEAF = 'fakd/digits/fakd_review_r18w32_r18w4_1xb50_digits.py'


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
    source = copy_sources(folder / 'source', *NOT_BUILT)
    return build(source, 'build_wheel', folder / 'dist')


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """A folder with the wheel installed, nothing else."""
    return install(wheel, tmp_path_factory.mktemp('site'))


def test_wheel_holds_modules_and_mim(wheel):
    found = contents(wheel)
    modules = {name for name in files_of('mmfakd') if name.endswith('.py')}
    mim = files_of('configs') | files_of('tools') | files_of('weights')
    mim |= {'model-index.yml'}
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
    assert {top for top in tops if not top.endswith('.dist-info')} == {
        'mmfakd',
        'mmfakd_on_demand.pth',
        'mmfakd_on_demand.py',
    }


def test_wheel_stays_small(wheel):
    assert wheel.stat().st_size < 15_000_000


def test_source_archive_is_the_repository(wheel, tmp_path):
    source = copy_sources(tmp_path / 'source')
    whole = {p.relative_to(source).as_posix() for p in source.rglob('*') if p.is_file()}
    sdist = build(source, 'build_sdist', tmp_path / 'dist')
    with tarfile.open(sdist) as archive:
        names = {m.name.partition('/')[2] for m in archive.getmembers() if m.isfile()}
    made = {name for name in names if '.egg-info/' in name} | {'PKG-INFO'}
    assert names - made == whole
    assert {'docs/en/commands.md', '.dev_scripts/install.py', '.ci/run'} <= names

    shutil.unpack_archive(sdist, tmp_path / 'unpacked')
    (unpacked,) = (tmp_path / 'unpacked').iterdir()
    # What is run as a program stays one.
    assert os.access(unpacked / 'tools/dist_train.sh', os.X_OK) == os.access(
        ROOT / 'tools/dist_train.sh', os.X_OK
    )
    again = contents(build(unpacked, 'build_wheel', tmp_path / 'again'))
    assert set(again) == set(contents(wheel))


def metadata_of(source, tmp_path):
    """The metadata that a build of the sources writes."""
    hook = 'prepare_metadata_for_build_wheel'
    path = build(source, hook, tmp_path / 'metadata') / 'METADATA'
    return Parser().parsestr(path.read_text(encoding='utf-8'))


def links_of(text):
    """Targets of links and images outside of code, in Markdown and HTML."""
    text = re.sub(r'^```.*?^```|`[^`\n]+`', '', text, flags=re.M | re.S)
    inline = re.findall(r'\]\(\s*([^)\s]+)', text)
    return inline + re.findall(r'^\[[^]]+\]: *(\S+)|\b(?:src|href)="(.*?)"', text, re.M)


def test_what_pypi_shows_has_absolute_links(tmp_path):
    source = copy_sources(tmp_path / 'source', *NOT_BUILT)
    metadata = metadata_of(source, tmp_path)
    assert metadata['Version'] == __version__
    assert metadata['Description-Content-Type'] == 'text/markdown'
    text = metadata.get_payload()
    assert 'mermaid' in text and 'arxiv.org' in text
    assert [link for link in links_of(text) if not link.startswith('https://')] == []
    addresses = dict(line.split(', ') for line in metadata.get_all('Project-URL'))
    assert all(address.startswith('https://') for address in addresses.values())


def test_known_repository_is_linked(tmp_path):
    """Its address stands in one place."""
    source = copy_sources(tmp_path / 'source', *NOT_BUILT)
    citation = (source / 'CITATION.cff').read_text()
    repository = 'https://example.org/group/mmfakd'
    assert '\nrepository-code:' not in citation
    citation += f"repository-code: '{repository}'\n"
    (source / 'CITATION.cff').write_text(citation)
    (source / 'README.md').write_text(
        '[page](docs/en/resume.md#how), [here](#part), [far](https://arxiv.org/x)\n'
        '![curve](./docs/en/figures/a.png) [![badge](b.svg)](LICENSE) `[a](b.md)`\n'
        '```python\n[c](d.md)\n```\n'
    )
    metadata = metadata_of(source, tmp_path)
    tag = f'{repository}/blob/v{__version__}'
    raw = f'{repository}/raw/v{__version__}'
    assert metadata.get_payload().strip() == (
        f'[page]({tag}/docs/en/resume.md#how), [here]({tag}/README.md#part), '
        '[far](https://arxiv.org/x)\n'
        f'![curve]({raw}/docs/en/figures/a.png) [![badge]({raw}/b.svg)]({tag}/LICENSE) '
        '`[a](b.md)`\n```python\n[c](d.md)\n```'
    )
    addresses = dict(line.split(', ') for line in metadata.get_all('Project-URL'))
    assert {'Paper', 'Source', 'Documentation', 'Changelog', 'Issues'} <= {*addresses}
    assert addresses['Source'] == repository == metadata['Home-page']


def test_release_is_told_everywhere():
    citation = (ROOT / 'CITATION.cff').read_text()
    released = re.search(r'^date-released: (.+)$', citation, re.M)[1]
    assert re.search(r'^version: (.+)$', citation, re.M)[1] == __version__
    changelog = (ROOT / 'CHANGELOG.md').read_text()
    headings = re.findall(r'^## (.+)$', changelog, re.M)
    assert headings[:2] == ['[Unreleased]', f'[{__version__}] - {released}']


def test_scripts_leave_an_installed_package_alone(site, tmp_path):
    """Only a checkout is put on the path; `.mim` has no modules."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "path=$PYTHONPATH $*"\n')
    python.chmod(0o755)
    environ = {'PATH': os.environ['PATH'], 'PYTHON': str(python)}
    for folder, path in ((site / 'mmfakd/.mim', ''), (ROOT, f'{ROOT}/tools/..')):
        script = folder / 'tools/dist_train.sh'
        told = subprocess.run(
            ['bash', str(script), 'a.py', '2'], env=environ, stdout=subprocess.PIPE
        ).stdout.decode()
        assert told.startswith(f'path={path} -m mmfakd train a.py --nproc=2')


def test_removed_config_leaves_the_next_build(tmp_path):
    source = copy_sources(tmp_path / 'source', *NOT_BUILT)
    name = f'mmfakd/.mim/configs/{LEAF}'
    assert name in contents(build(source, 'build_wheel', tmp_path / 'first'))
    (source / 'configs' / LEAF).unlink()
    assert name not in contents(build(source, 'build_wheel', tmp_path / 'second'))


def test_editable_build_links_mim(tmp_path):
    source = copy_sources(tmp_path / 'source', *NOT_BUILT)
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
    source = copy_sources(tmp_path / 'source', *NOT_BUILT)
    build(source, 'build_editable', tmp_path / 'editable')
    found = contents(build(source, 'build_wheel', tmp_path / 'dist'))
    assert (
        found[f'mmfakd/.mim/configs/{LEAF}'] == (ROOT / 'configs' / LEAF).read_bytes()
    )


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


ON_DEMAND = """
import site
import sys

# As Python does with its own folder of packages.
site.addsitedir({site!r})
assert 'mmfakd_on_demand' in sys.modules and 'mmengine' not in sys.modules

from mmengine.config import Config
from mmengine.hub import get_config, get_model

assert get_config('mmpretrain::resnet/resnet18_8xb32_in1k.py').model.type
assert 'mmfakd' not in sys.modules
{do}
assert 'mmfakd' in sys.modules
"""


@pytest.mark.parametrize(
    'do',
    [
        "assert Config.fromfile('text.py').model._scope_ == 'mmpretrain'",
        "assert Config.fromfile('pure.py').model._scope_ == 'mmpretrain'",
        f"assert get_model(cfg_path='mmfakd::{LEAF}').architecture",
        # Its shims are what lets this be imported.
        'import mmrazor.structures',
    ],
)
def test_configs_are_found_without_an_import_of_mmfakd(do, site, tmp_path):
    """As in scripts of mmpretrain, mmdet and mmrazor."""
    (tmp_path / 'text.py').write_text(f"_base_ = ['mmfakd::{LEAF}']\n")
    module = LEAF.removesuffix('.py').replace('/', '.')
    (tmp_path / 'pure.py').write_text(
        'from mmengine.config import read_base\nwith read_base():\n'
        f'    from mmfakd.configs.{module} import *\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', ON_DEMAND.format(site=str(site), do=do)],
        cwd=tmp_path,
        env={'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


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
    call('zoo', 'get', leaf, '-o', 'zoo')
    (weights,) = (tmp_path / 'zoo').glob(f'{leaf}_*.pth')
    assert (
        weights.read_bytes()
        == (site / 'mmfakd/.mim/weights' / weights.name).read_bytes()
    )
    assert str(site / 'mmfakd') in call('env')
