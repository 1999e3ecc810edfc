# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What pip brings with mmfakd: never a library of a family that is not wanted.

pip's own resolver decides, on distributions without content, so no index is needed.
"""

import json
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmfakd.compat.families import FAMILIES, ONEDL, STOCK

pytestmark = pytest.mark.skipif(
    not (find_spec('pip') and find_spec('setuptools')),
    reason='pip and setuptools are not in this environment, as where uv made it',
)
ROOT = Path(__file__).resolve().parents[1]
# What the libraries say that they need of each other, in their last releases.
NEEDS = {
    'mmcv': ['mmengine>=0.3.0'],
    'mmcv-lite': ['mmengine>=0.3.0'],
    'onedl-mmcv': ['onedl-mmengine>=0.10.8rc1'],
    'torchvision': ['torch'],
}
# Releases that an index has; beside each family the next one, which is refused.
RELEASES = {
    'torch': ['2.1.2', '2.14.1'],
    'torchvision': ['0.29.1'],
    'mmrazor': ['0.3.1', '1.0.0'],
    'joblib': ['1.6.0'],
    'safetensors': ['0.8.0'],
    'scikit-learn': ['1.9.1'],
    'setuptools': ['80.8.0', '84.2.1'],
    'ftfy': ['6.3.1'],
    'regex': ['2026.11.19'],
    'mmengine': ['0.10.7', '0.11.0'],
    'mmcv': ['2.1.0', '2.2.0'],
    'mmcv-lite': ['2.1.0', '2.2.0'],
    'mmpretrain': ['1.2.0'],
    'mmdet': ['3.3.0'],
    'mmsegmentation': ['1.2.2'],
    'onedl-mmengine': ['0.10.12', '0.11.0'],
    'onedl-mmcv': ['2.3.6', '2.4.0'],
    'onedl-mmpretrain': ['1.3.6', '1.4.0'],
    'onedl-mmdetection': ['3.5.1', '3.6.0'],
    'onedl-mmsegmentation': ['1.4.2'],
}
COMMON = {
    name: RELEASES[name][-1]
    for name in ('torch', 'torchvision', 'mmrazor', 'joblib', 'safetensors')
} | {'scikit-learn': '1.9.1'}


def metadata_of(name, version, needs):
    lines = [f'Requires-Dist: {need}\n' for need in needs]
    return f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{"".join(lines)}'


def write_wheel(folder, name, version, metadata):
    stem = f'{name.replace("-", "_")}-{version}'
    info = f'{stem}.dist-info'
    with zipfile.ZipFile(folder / f'{stem}-py3-none-any.whl', 'w') as archive:
        archive.writestr(f'{info}/METADATA', metadata)
        tags = 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
        archive.writestr(f'{info}/WHEEL', tags)
        archive.writestr(f'{info}/RECORD', '')


@pytest.fixture(scope='module')
def metadata(tmp_path_factory):
    """Our own, as the build writes it."""
    folder = tmp_path_factory.mktemp('metadata')
    hook = f'prepare_metadata_for_build_wheel({str(folder)!r})'
    code = f'from setuptools.build_meta import *; print({hook})'
    command = [sys.executable, '-c', code]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return (folder / built.stdout.split()[-1] / 'METADATA').read_text()


@pytest.fixture(scope='module')
def index(metadata, tmp_path_factory):
    """A folder of wheels that pip takes as an index."""
    folder = tmp_path_factory.mktemp('index')
    version = Parser().parsestr(metadata)['Version']
    write_wheel(folder, 'mmfakd', version, metadata)
    for name, versions in RELEASES.items():
        for version in versions:
            needs = NEEDS.get(name, [])
            write_wheel(folder, name, version, metadata_of(name, version, needs))
    return folder


@pytest.fixture
def dry_run(index, tmp_path):
    """Ask pip what it would install into an environment with some distributions."""

    def run(wanted, installed):
        home = tmp_path / 'environment'
        command = [sys.executable, '-m', 'venv', '--without-pip', str(home)]
        subprocess.run(command, check=True)
        (site,) = home.glob('lib/python*/site-packages')
        for name, version in installed.items():
            info = site / f'{name.replace("-", "_")}-{version}.dist-info'
            info.mkdir()
            needs = NEEDS.get(name, [])
            (info / 'METADATA').write_text(metadata_of(name, version, needs))
            (info / 'RECORD').touch()
        report = tmp_path / 'report.json'
        options = ['--dry-run', '--quiet', '--no-index', '--find-links', str(index)]
        options += ['--report', str(report), '--isolated']
        pip = [sys.executable, '-m', 'pip', '--python', str(home / 'bin' / 'python')]
        process = subprocess.run(
            [*pip, 'install', *options, wanted], capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        entries = json.loads(report.read_text())['install']
        named = (entry['metadata'] for entry in entries)
        return {one['name']: one['version'] for one in named}

    return run


def newest(family, *modules):
    """The newest distributions of a family that its bounds accept."""
    found = {}
    for library in family.requirements:
        if library.required or library.imported in ('mmpretrain', *modules):
            name = 'mmcv-lite' if library.name == 'mmcv' else library.name
            accepted = [v for v in RELEASES[name] if library.accepts(v)]
            found[name] = accepted[-1]
    return found


@pytest.mark.parametrize('family', FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize('whole', [True, False])
def test_nothing_comes_into_an_environment_with_a_family(whole, family, dry_run):
    """Of no family, its own included: versions that are there stay."""
    there = newest(family, 'mmdet', 'mmseg') | {'setuptools': '84.2.1'}
    common = COMMON if whole else {k: v for k, v in COMMON.items() if 'torch' in k}
    brought = dry_run('mmfakd', there | common)
    assert brought.keys() == {'mmfakd', *(COMMON.keys() - common.keys())}


EXTRAS = {
    'stock': newest(STOCK) | {'setuptools': '80.8.0'},
    'stock,stock-det': newest(STOCK, 'mmdet') | {'setuptools': '80.8.0'},
    'onedl': newest(ONEDL),
    'onedl,onedl-det,onedl-seg': newest(ONEDL, 'mmdet', 'mmseg'),
    'mim': {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmpretrain': '1.2.0'}
    | {'setuptools': '80.8.0'},
}


@pytest.mark.parametrize('extras', EXTRAS)
def test_extras_bring_one_family_whole(extras, dry_run):
    brought = dry_run(f'mmfakd[{extras}]', {})
    brought.pop('mmfakd')
    assert brought == COMMON | EXTRAS[extras]


def test_setuptools_is_capped_with_the_stock_family_alone(metadata):
    needs = Parser().parsestr(metadata).get_all('Requires-Dist')
    capped = [need for need in needs if need.startswith('setuptools')]
    assert capped and all('stock' in need or '"mim"' in need for need in capped)


def test_no_extra_is_of_two_families(metadata):
    read = Parser().parsestr(metadata)
    names = [{r.name for r in family.requirements} for family in FAMILIES]
    names[0] |= {*STOCK.others}
    for extra in [None, *read.get_all('Provides-Extra')]:
        brings = {
            need.split(';')[0].split('<')[0].split('>')[0].strip()
            for need in read.get_all('Requires-Dist')
            if (f'extra == "{extra}"' in need if extra else 'extra ==' not in need)
        }
        of = [family.name for family, own in zip(FAMILIES, names) if own & brings]
        expected = {'onedl': ['onedl'], 'stock': ['stock'], 'mim': ['stock']}
        assert of == expected.get(str(extra).partition('-')[0], [])
        assert not {'mmcv', 'mmcv-lite'} <= brings
