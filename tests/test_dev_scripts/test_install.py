# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The installer's decisions, without a network: what to use, keep, build, refuse."""

import contextlib
import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import venv
import zipfile
from pathlib import Path

import pytest
from installer import choose_environment, full_mmcv, versions
from installer.common import InstallError
from installer.environment import NOTE, Environment
from installer.installer import Installer

ROOT = Path(__file__).resolve().parents[2]

TORCH = dict(
    torch='2.11.0',
    cuda='13.0',
    cuda_home=None,
    archs=[],
    python='cp311',
    platform='linux_x86_64',
)
FITTING = {'pip': '26.0', 'torch': '2.4.1', 'torchvision': '0.19.1', 'numpy': '1.26.4'}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFAKD_CACHE', str(tmp_path / 'cache'))
    for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST', 'MAX_JOBS'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / 'cache'


@pytest.fixture
def make_environment(tmp_path):
    """Makes a virtual environment in which some packages look installed."""

    def make(dists, own=True):
        prefix = tmp_path / 'env'
        venv.create(prefix, symlinks=True)
        environment = Environment(prefix, own)
        for name, version in dists.items():
            info = environment.site / f'{name.replace("-", "_")}-{version}.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')
            (info / 'RECORD').write_text('')
        environment.refresh()
        return environment

    return make


@pytest.mark.parametrize(
    ('version', 'specifiers', 'holds'),
    [
        ('2.11.0+cu130', '>=2.1', True),
        ('2.1.2', '>=2.1', True),
        ('2.0.1', '>=2.1', False),
        ('0.10.7', '>=0.10.0,<0.11.0', True),
        ('0.11.0rc0', '>=0.10.0,<0.11.0', False),
        ('82.0', '<82', False),
        ('2.1', '==2.1.0', True),
    ],
)
def test_version_bounds(version, specifiers, holds):
    name, parsed = versions.parse_requirement(f'Some_Package{specifiers}  # why')
    assert name == 'some-package'
    assert versions.satisfies(version, parsed) is holds


def test_requirement_lines_without_a_package():
    for line in ('', '# numpy', '-r runtime.txt'):
        assert versions.parse_requirement(line) is None


def test_constraints_exist_for_every_set():
    for name in versions.TORCH_SETS:
        pins = versions.read_requirements(f'constraints-torch{name}.txt')
        (pin,) = pins['torch']
        assert pin[0] == '=='
        assert pin[1].startswith(f'{name}.')
        assert pins['mmcv'] == [('==', full_mmcv.MMCV)] == pins['mmcv-lite']


# ------------------------------------------------------------ the active environment


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({}, None),
        ({'mmcv-lite': '2.1.0', 'mmengine': '0.10.7'}, None),
        ({'torch': None}, 'it has no torch'),
        ({'pip': None}, 'it has no pip'),
        ({'torch': '2.0.1'}, 'it has torch 2.0.1, not >=2.1'),
        ({'mmcv': '2.2.0'}, 'it has mmcv 2.2.0, not >=2.1.0,<2.2.0'),
        ({'mmcv-lite': '2.0.1'}, 'it has mmcv-lite 2.0.1, not >=2.1.0,<2.2.0'),
        ({'setuptools': '84.0.0'}, 'it has setuptools 84.0.0, not <82'),
        ({'torch': '2.1.2', 'numpy': '2.0.0'}, 'does not work with numpy 2'),
    ],
)
def test_active_environment_is_used_only_where_it_fits(
    make_environment, changes, reason
):
    dists = {k: v for k, v in {**FITTING, **changes}.items() if v}
    answer = choose_environment.why_unfit(make_environment(dists, own=False), None)
    if reason is None:
        assert answer is None
    else:
        assert reason in answer


def test_active_environment_keeps_its_versions(make_environment):
    environment = make_environment({**FITTING, 'mmcv-lite': '2.1.0'}, own=False)
    installer = Installer(environment, 'full', [], None)
    assert installer.settle_torch_set() == '2.11'
    pins = installer.write_constraints('2.11').read_text().split()
    assert {'torch==2.4.1', 'torchvision==0.19.1', 'numpy==1.26.4'} <= set(pins)
    assert 'mmengine==0.10.7' in pins  # not installed: the tested version
    assert [pin for pin in pins if pin.startswith('torch==')] == ['torch==2.4.1']


def test_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'cat.jpg').write_text('meow')
    with pytest.raises(InstallError, match='photos is not a virtual environment'):
        choose_environment.make_environment(tmp_path / 'photos', None)
    assert (tmp_path / 'photos' / 'cat.jpg').exists()


def python_of_version(path, *version):
    path.write_text(f'#!/bin/sh\necho {" ".join(map(str, version))}\n')
    path.chmod(0o755)
    return str(path)


def test_unsupported_python_is_named(tmp_path, monkeypatch):
    new = python_of_version(tmp_path / 'python-new', 3, 14)
    monkeypatch.setenv('PYTHON', new)
    with pytest.raises(InstallError) as error:
        choose_environment.find_base_python(None)
    assert f'Found: {new} (3.14)' in str(error.value)
    assert '3.10 to 3.12 (torch 2.11) or 3.9 to 3.11 (torch 2.1)' in str(error.value)


def test_python_for_the_newer_set_is_preferred(tmp_path, monkeypatch):
    old = python_of_version(tmp_path / 'python3', 3, 9)
    new = python_of_version(tmp_path / 'python3.11', 3, 11)
    monkeypatch.delenv('PYTHON', raising=False)
    monkeypatch.setattr(choose_environment, 'PYTHONS', (old, new))
    assert choose_environment.find_base_python(None) == new
    assert choose_environment.find_base_python('2.1') == old
    monkeypatch.setattr(choose_environment, 'PYTHONS', (old,))
    assert choose_environment.find_base_python(None) == old
    with pytest.raises(InstallError, match=r'Wanted: 3\.10 to 3\.12 \(torch 2\.11\),'):
        choose_environment.find_base_python('2.11')


def test_script_without_python_says_what_it_looked_at():
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'install.sh')],
        env={**os.environ, 'PYTHON': 'no-such-python'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stdout == ''
    assert 'Looked at: no-such-python (not there)' in result.stderr
    assert 'PYTHON=/path/to' in result.stderr


# ------------------------------------------------------------ flavours and leftovers


@pytest.mark.parametrize(
    ('installed', 'asked', 'lite'),
    [
        ([], 'lite', True),
        (['mmcv-lite'], 'lite', True),
        (['mmcv'], 'lite', False),
        (['mmcv', 'mmcv-lite'], 'lite', True),
        (['mmcv'], 'force-lite', True),
        (['mmcv-lite'], 'full', False),
        (['mmcv'], 'full', False),
    ],
)
def test_which_flavour_serves(make_environment, installed, asked, lite):
    environment = make_environment(dict.fromkeys(installed, '2.1.0'))
    assert Installer(environment, asked, [], None).lite is lite


def test_full_flavour_brings_detectors_and_segmentors(make_environment):
    installer = Installer(make_environment({}), 'full', ['tests'], None)
    files = {'runtime.txt', 'tests.txt', 'det.txt', 'seg.txt'}
    assert set(installer.requirement_files()) == files


def test_interrupted_package_is_removed(make_environment):
    environment = make_environment({'einops': '0.8.2', 'addict': '2.4.0'})
    (environment.site / 'einops-0.8.2.dist-info' / 'RECORD').unlink()
    Installer(environment, 'lite', [], None).remove_fragments()
    assert 'einops' not in environment.dists
    assert 'addict' in environment.dists


def test_nothing_counts_as_complete_without_a_note(make_environment):
    environment = make_environment(FITTING)
    assert not Installer(environment, 'lite', [], None).is_complete()
    (environment.prefix / NOTE).write_text('{ cut short')
    assert not Installer(environment, 'lite', [], None).is_complete()


def test_changed_version_ends_completeness(make_environment):
    environment = make_environment({**FITTING, 'mmcv-lite': '2.1.0'})
    environment.source = json.dumps(
        dict(url=ROOT.as_uri(), dir_info=dict(editable=True))
    )
    installer = Installer(environment, 'lite', [], None)
    linked = installer.package_is_linked()
    installer.note = dict(
        digest=installer.digest(),
        root=str(ROOT),
        extras=[],
        lite=True,
        torch_set='2.11',
        versions=installer.tracked_versions(),
    )
    assert installer.is_complete() is linked
    environment.dists['mmengine'] = '0.9.0'
    assert not installer.is_complete()


# ------------------------------------------------------------ mmcv


def test_wheel_key_tells_everything_apart_that_matters():
    variants = [
        dict(TORCH),
        {**TORCH, 'torch': '2.11.1'},
        {**TORCH, 'cuda': '12.8'},
        {**TORCH, 'cuda': None},
        {**TORCH, 'python': 'cp312'},
        {**TORCH, 'platform': 'linux_aarch64'},
    ]
    keys = [full_mmcv.wheel_key(variant, 'cpu') for variant in variants]
    keys.append(full_mmcv.wheel_key(TORCH, 'sm90'))
    assert len(set(keys)) == len(keys)
    assert all(full_mmcv.MMCV in key and '/' not in key for key in keys)


def cuda_home(tmp_path, release):
    nvcc = tmp_path / 'cuda' / 'bin' / 'nvcc'
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f'#!/bin/sh\necho Cuda compilation tools, release {release}, V1\n')
    nvcc.chmod(0o755)
    return str(tmp_path / 'cuda')


def test_operators_for_cuda_need_a_gpu_and_its_compiler(tmp_path, monkeypatch, capsys):
    home = cuda_home(tmp_path, '13.0')
    compiler = {**TORCH, 'cuda_home': home}
    gpu = {**TORCH, 'archs': ['8.0', '9.0']}
    assert full_mmcv.operators_kind(compiler) == 'cpu'
    assert capsys.readouterr().err == ''
    assert full_mmcv.operators_kind(gpu) == 'cpu'
    assert 'the CUDA compiler here is missing' in capsys.readouterr().err
    assert full_mmcv.operators_kind({**gpu, 'cuda_home': home}) == 'sm80+sm90'
    assert full_mmcv.operators_kind({**gpu, 'cuda_home': home, 'cuda': '12.8'}) == 'cpu'
    assert 'built for CUDA 12.8' in capsys.readouterr().err
    monkeypatch.setenv('FORCE_CUDA', '1')
    with pytest.raises(InstallError, match='needs TORCH_CUDA_ARCH_LIST'):
        full_mmcv.operators_kind(compiler)
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '8.0;9.0')
    assert full_mmcv.operators_kind(compiler) == 'sm80+sm90'


def test_cached_wheel_is_taken(make_environment, own_cache):
    shelf = own_cache / 'wheels' / full_mmcv.wheel_key(TORCH, 'cpu')
    shelf.mkdir(parents=True)
    wheel = shelf / f'mmcv-{full_mmcv.MMCV}-cp311-cp311-linux_x86_64.whl'
    wheel.write_text('')
    found = full_mmcv.ready_wheel(make_environment({}), TORCH, 'cpu', Path('unused'))
    assert found == wheel


@contextlib.contextmanager
def serve(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()


def publish(folder, python):
    """A page as OpenMMLab's, with one wheel."""
    folder.mkdir(parents=True)
    name = f'mmcv-{full_mmcv.MMCV}-{python}-{python}-manylinux1_x86_64.whl'
    with zipfile.ZipFile(folder / name, 'w') as archive:
        info = f'mmcv-{full_mmcv.MMCV}.dist-info'
        metadata = f'Metadata-Version: 2.1\nName: mmcv\nVersion: {full_mmcv.MMCV}\n'
        archive.writestr(f'{info}/METADATA', metadata)
        archive.writestr(
            f'{info}/WHEEL', f'Wheel-Version: 1.0\nTag: {python}-{python}-any\n'
        )
        archive.writestr(f'{info}/RECORD', '')
    (folder / 'index.html').write_text(f'<a href="{name}">{name}</a><br>')
    return name


def test_published_wheel_is_downloaded_once(tmp_path, monkeypatch, own_cache):
    python = 'cp{}{}'.format(*sys.version_info)
    torch = {**TORCH, 'torch': '2.1.2', 'cuda': '12.1', 'python': python}
    name = publish(tmp_path / 'mirror' / 'cu121' / 'torch2.1.0', python)
    environment = Environment(Path(sys.prefix), own=False)  # it has pip
    with serve(tmp_path / 'mirror') as url:
        monkeypatch.setenv('MMFAKD_MMCV_WHEELS', url)
        wheel = full_mmcv.ready_wheel(environment, torch, 'cpu', Path('unused'))
    assert wheel == own_cache / 'wheels' / full_mmcv.wheel_key(torch, 'cpu') / name
    assert zipfile.is_zipfile(wheel)
    # The server is gone: this one comes from the cache.
    assert full_mmcv.ready_wheel(environment, torch, 'cpu', Path('unused')) == wheel


def test_no_published_wheel_is_no_error(tmp_path, monkeypatch, make_environment):
    environment = make_environment({})
    torch = {**TORCH, 'torch': '2.1.2', 'cuda': '12.1', 'python': 'cp311'}
    publish(tmp_path / 'mirror' / 'cu121' / 'torch2.1.0', 'cp38')
    with serve(tmp_path / 'mirror') as url:
        monkeypatch.setenv('MMFAKD_MMCV_WHEELS', url)
        target = tmp_path / 'download'
        assert full_mmcv.download_wheel(environment, torch, target) is None
        unlisted = {**torch, 'cuda': '11.8'}
        assert full_mmcv.download_wheel(environment, unlisted, target) is None
    assert full_mmcv.download_wheel(environment, torch, target) is None  # no server
    # For a newer torch nobody is asked.
    monkeypatch.setenv('MMFAKD_MMCV_WHEELS', 'not even a URL')
    assert full_mmcv.download_wheel(environment, TORCH, target) is None


def test_failed_compilation_shows_the_errors(tmp_path):
    log = tmp_path / 'build.log'
    code = 'echo "[1/9] c++ a.cpp"; echo "a.cpp:3: error: no such thing"; exit 1'
    with pytest.raises(InstallError) as error:
        full_mmcv.compile_watched(['sh', '-c', code], dict(os.environ), log)
    assert 'a.cpp:3: error: no such thing' in str(error.value)
    assert str(log) in str(error.value)
    assert '[1/9]' in log.read_text()


# ------------------------------------------------------------ as a whole


def test_failing_import_is_named(make_environment):
    environment = make_environment({})
    for name, code in (('good', 'print("loud")'), ('bad', 'import good, no_such')):
        (environment.site / f'{name}.py').write_text(code)
    assert environment.first_failing_import(['json', 'good']) is None
    name, trace = environment.first_failing_import(['json', 'good', 'bad', 'csv'])
    assert name == 'bad'
    assert "No module named 'no_such'" in trace


def test_help_needs_python_alone():
    result = subprocess.run(
        [sys.executable, '-S', str(ROOT / '.dev_scripts' / 'install.py'), '--help'],
        cwd='/',
        env={},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert 'Installs mmfakd' in result.stdout
    for name in ('--force-lite', 'MMFAKD_CACHE', 'MAX_JOBS'):
        assert name in result.stdout


def test_complete_installation_returns_at_once():
    environment = Environment(Path(sys.prefix), own=True)
    noted = environment.read_note()
    flavour = 'lite' if noted.get('lite') else 'full'
    # Never start an installation from within a test.
    if not Installer(environment, flavour, [], None).is_complete():
        pytest.skip('this environment was not made by the tools/install.sh of today')
    note = environment.prefix / NOTE
    before = note.stat().st_mtime_ns
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'install.sh'), f'--{flavour}'],
        env={**os.environ, 'VIRTUAL_ENV': sys.prefix},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f'{sys.prefix}/bin/python\n'
    assert 'installing' not in result.stderr
    assert note.stat().st_mtime_ns == before
