# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The installer's decisions, without a network: what to use, keep, build, refuse."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tarfile
import threading
import venv
import zipfile
from pathlib import Path

import install
import pytest
from installer import full_mmcv
from installer.common import InstallError
from installer.environment import Environment
from installer.full_mmcv import FullMmcv
from installer.installer import FAMILIES, TORCH_SETS, Installer
from installer.uv import REQUIREMENT, Uv

ROOT = Path(__file__).resolve().parents[2]
PYTHON = 'python{}.{}'.format(*sys.version_info)
MMCV = FAMILIES['stock']['mmcv']
TORCH = {
    'torch': '2.11.0',
    'cuda': '13.0',
    'cuda_home': None,
    'archs': [],
    'python': 'cp311',
    'platform': 'linux_x86_64',
}
FITTING = {'torch': '2.11.0', 'torchvision': '0.26.0', 'numpy': '2.4.6'}


@pytest.fixture(scope='module')
def uv():
    """uv as tools/install.sh left it: no test loads anything."""
    uv = Uv()
    mark = uv.home / 'complete'
    if not (mark.exists() and mark.read_text() == REQUIREMENT):
        pytest.skip('tools/install.sh has not been run')
    return uv


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFAKD_CACHE', str(tmp_path / 'cache'))
    for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST', 'MAX_JOBS'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / 'cache'


@pytest.fixture
def make_environment(tmp_path):
    """Makes a virtual environment in which some packages look installed."""

    def make(dists, own=True, uv=None):
        prefix = tmp_path / 'env'
        venv.create(prefix, symlinks=True)
        environment = Environment(uv, prefix, own)
        for name, version in dists.items():
            info = environment.site / f'{name.replace("-", "_")}-{version}.dist-info'
            info.mkdir()
            metadata = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
            (info / 'METADATA').write_text(metadata)
            (info / 'RECORD').write_text('')
        return environment

    return make


def options(*words):
    return install.parse_args(words)


# ------------------------------------------------------------ uv, set up as pip is


def test_settings_of_pip_hold_for_uv(uv, tmp_path, monkeypatch):
    for name in [*os.environ]:
        if name.startswith(('PIP_', 'UV_', 'SSL_', 'ALL_PROXY')):
            monkeypatch.delenv(name)
    file = tmp_path / 'pip.conf'
    file.write_text(
        '[global]\nindex-url = https://mirror.example/simple\ntimeout = 7\n'
        'extra-index-url =\n    https://a.example/simple\n    https://b.example\n'
        '[install]\nfind-links = /one\n    /two\n'
        '[download]\nproxy = http://not.for.installing:1\n'
    )
    monkeypatch.setenv('PIP_CONFIG_FILE', str(file))
    monkeypatch.setenv('PIP_TIMEOUT', '9')  # counts more than the file
    monkeypatch.setenv('PIP_TRUSTED_HOST', 'mirror.example')
    monkeypatch.setenv('UV_INDEX', 'https://for.uv.alone')  # counts most
    environ = Uv().environ
    assert environ['UV_DEFAULT_INDEX'] == 'https://mirror.example/simple'
    assert environ['UV_INDEX'] == 'https://for.uv.alone'
    assert environ['UV_FIND_LINKS'] == '/one,/two'
    assert environ['UV_HTTP_TIMEOUT'] == '9'
    assert environ['UV_INSECURE_HOST'] == 'mirror.example'
    assert 'ALL_PROXY' not in environ
    monkeypatch.delenv('UV_INDEX')
    expected = 'https://a.example/simple https://b.example'
    assert Uv().environ['UV_INDEX'] == expected


def test_no_index_of_pip_holds_for_uv(uv, monkeypatch):
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    environment = Environment(Uv(), Path(sys.prefix), own=False)
    with pytest.raises(InstallError, match='in the provided package locations'):
        environment.pip('install', '--dry-run', 'toolz==0.12.0', quiet=True)


def test_constraints_exist_for_every_tested_set():
    for name in {*TORCH_SETS} - {'newest'}:
        file = ROOT / 'requirements' / f'constraints-torch{name}.txt'
        pins = file.read_text().splitlines()
        assert any(pin.startswith(f'torch=={name}.') for pin in pins)
        assert {f'mmcv=={MMCV[1]}', f'mmcv-lite=={MMCV[1]}'} <= {*pins}


# ------------------------------------------------------------ the environment


@pytest.mark.parametrize(
    ('torch', 'asked', 'reason'),
    [
        (None, None, 'it has no torch'),
        ('2.4.1', '2.11', 'it has torch 2.4.1, not 2.11'),
        ('2.11.0', '2.1', 'it has torch 2.11.0, not 2.1'),
    ],
)
def test_active_environment_without_the_torch_is_not_used(
    make_environment, torch, asked, reason
):
    environment = make_environment({'torch': torch} if torch else {}, own=False)
    assert Installer(environment, options()).why_unfit(asked) == reason


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'torch': '2.0.1'}, 'torch'),
        ({'mmcv': '2.2.0'}, 'mmcv'),
        ({'mmcv-lite': '2.0.1'}, 'mmcv-lite'),
        ({'setuptools': '84.0.0'}, 'setuptools'),
        ({'torch': '2.1.2', 'numpy': '2.0.0'}, 'numpy'),
    ],
)
def test_active_environment_with_other_versions_is_not_used(
    make_environment, uv, monkeypatch, changes, reason
):
    monkeypatch.setenv('UV_OFFLINE', '1')
    environment = make_environment({**FITTING, **changes}, own=False, uv=uv)
    answer = Installer(environment, options()).why_unfit(None)
    assert f'{reason}=={changes[reason]}' in answer if reason != 'numpy' else answer
    assert reason in answer


class Recorded(Environment):
    """Keeps the constraints that uv would be given."""

    def pip(self, command, *words, quiet=False):
        files = [w.partition('=')[2] for w in words if '--constraints=' in str(w)]
        self.pins = [line for file in files for line in Path(file).read_text().split()]


def test_active_environment_keeps_its_versions(make_environment, uv):
    dists = {**FITTING, 'torch': '2.4.1', 'mmcv-lite': '2.1.0'}
    prefix = make_environment(dists, own=False).prefix
    environment = Recorded(uv, prefix, own=False)
    Installer(environment, options('--full')).install()
    pins = environment.pins
    assert [pin for pin in pins if pin.startswith('torch==')] == ['torch==2.4.1']
    assert 'mmengine==0.10.7' in pins  # not installed: the tested version


def test_constraints_of_pip_hold_too(make_environment, tmp_path, monkeypatch):
    users = tmp_path / 'users.txt'
    users.write_text('torch<=2.14.1')
    monkeypatch.setenv('UV_CONSTRAINT', str(users))
    uv = Uv()
    environment = Recorded(uv, make_environment({}).prefix, own=True)
    Installer(environment, options('--torch', '2.11')).install()
    assert {'torch<=2.14.1', 'torch==2.11.0'} <= {*environment.pins}


def test_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'cat.jpg').write_text('meow')
    with pytest.raises(InstallError, match='photos is not a virtual environment'):
        install.make_environment(Uv(), tmp_path / 'photos', None)
    assert (tmp_path / 'photos' / 'cat.jpg').exists()


def test_unsupported_python_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHON', sys.executable)
    monkeypatch.setattr(sys, 'version_info', (3, 15, 0))
    with pytest.raises(InstallError) as error:
        install.make_environment(Uv(), tmp_path / 'env', None)
    assert f'Found: {sys.executable} (3.15)' in str(error.value)
    assert '3.10 to 3.12 (torch 2.11) or 3.9 to 3.11 (torch 2.1)' in str(error.value)


def test_damaged_environment_is_made_anew(tmp_path, uv, monkeypatch):
    monkeypatch.delenv('PYTHON', raising=False)
    prefix = tmp_path / 'env'
    venv.create(prefix, symlinks=True)
    (prefix / 'bin' / 'python').unlink()
    (prefix / 'bin' / 'python').symlink_to('/no/such/python')
    with pytest.raises(InstallError, match='has no Python that works'):
        Environment(uv, prefix, own=True)
    assert install.make_environment(uv, prefix, None).output('-c', 'print(1)') == '1\n'


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
        (['onedl-mmengine', 'onedl-mmcv'], 'lite', True),
        (['onedl-mmengine', 'onedl-mmcv'], 'full', False),
    ],
)
def test_which_flavour_serves(make_environment, installed, asked, lite):
    environment = make_environment(dict.fromkeys(installed, '2.1.0'))
    assert Installer(environment, options(f'--{asked}')).lite is lite


def test_family_that_is_there_stays(make_environment):
    assert Installer(make_environment({}), options()).family == 'stock'


def test_maintained_family_is_recognised(make_environment):
    environment = make_environment({'onedl-mmengine': '0.10.12'}, own=False)
    installer = Installer(environment, options())
    assert installer.family == 'onedl'
    assert installer.mmcv.name == 'onedl-mmcv'


def test_requirements_of_every_family_exist():
    for family in FAMILIES.values():
        for name in (*family['lite'], *family['full']):
            assert (ROOT / 'requirements' / f'{name}.txt').exists()


def test_interrupted_package_is_removed(make_environment):
    environment = make_environment({'einops': '0.8.2', 'addict': '2.4.0'})
    (environment.site / 'einops-0.8.2.dist-info' / 'RECORD').unlink()
    environment.remove_fragments()
    assert 'einops' not in environment.dists
    assert 'addict' in environment.dists


def test_only_a_note_that_still_holds_makes_complete(make_environment):
    environment = make_environment({**FITTING, 'mmcv-lite': '2.1.0'})
    first = Installer(environment, options())
    assert not first.is_complete()
    first.note_file.write_text('{ cut short')
    assert not Installer(environment, options()).is_complete()
    first.note_file.write_text(json.dumps(first.state(None)))
    linked = (ROOT / 'mmfakd' / '.mim' / 'model-index.yml').exists()
    assert Installer(environment, options()).is_complete() is linked
    assert not Installer(environment, options('--tests')).is_complete()
    assert not Installer(environment, options('--full')).is_complete()
    other = '2.1' if sys.version_info >= (3, 10) else '2.11'
    assert not Installer(environment, options('--torch', other)).is_complete()
    (environment.site / 'mmengine-0.9.0.dist-info').mkdir()
    assert not Installer(environment, options()).is_complete()


# ------------------------------------------------------------ mmcv


def test_wheel_key_tells_everything_apart_that_matters():
    variants = [
        TORCH,
        {**TORCH, 'torch': '2.11.1'},
        {**TORCH, 'cuda': '12.8'},
        {**TORCH, 'cuda': None},
        {**TORCH, 'python': 'cp312'},
        {**TORCH, 'platform': 'linux_aarch64'},
    ]
    keys = [FullMmcv(None, *MMCV).key(variant, 'cpu') for variant in variants]
    keys.append(FullMmcv(None, *MMCV).key(TORCH, 'sm90'))
    keys.append(FullMmcv(None, *FAMILIES['onedl']['mmcv']).key(TORCH, 'cpu'))
    assert len(set(keys)) == len(keys)
    assert all('/' not in key for key in keys)


def cuda_home(tmp_path, release):
    nvcc = tmp_path / 'cuda' / 'bin' / 'nvcc'
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f'#!/bin/sh\necho Cuda compilation tools, release {release}, V1\n')
    nvcc.chmod(0o755)
    return str(tmp_path / 'cuda')


def test_operators_for_cuda_need_a_gpu_and_its_compiler(
    tmp_path, own_cache, monkeypatch, capsys
):
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


def test_cached_wheel_is_taken(own_cache):
    mmcv = FullMmcv(None, *MMCV)
    shelf = own_cache / 'wheels' / mmcv.key(TORCH, 'cpu')
    shelf.mkdir(parents=True)
    wheel = shelf / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
    wheel.write_text('')
    assert mmcv.ready_wheel(TORCH, 'cpu') == wheel


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
    name = f'mmcv-{MMCV[1]}-{python}-{python}-manylinux1_x86_64.whl'
    with zipfile.ZipFile(folder / name, 'w') as archive:
        info = f'mmcv-{MMCV[1]}.dist-info'
        metadata = f'Metadata-Version: 2.1\nName: mmcv\nVersion: {MMCV[1]}\n'
        archive.writestr(f'{info}/METADATA', metadata)
        archive.writestr(
            f'{info}/WHEEL',
            'Wheel-Version: 1.0\nRoot-Is-Purelib: true\n'
            f'Tag: {python}-{python}-manylinux1_x86_64\n',
        )
        record = ''.join(f'{info}/{n},,\n' for n in ('METADATA', 'WHEEL', 'RECORD'))
        archive.writestr(f'{info}/RECORD', record)
    (folder / 'index.html').write_text(f'<a href="{name}">{name}</a><br>')


def test_published_wheel_is_installed(tmp_path, monkeypatch, make_environment, uv):
    python = 'cp{}{}'.format(*sys.version_info)
    torch = {**TORCH, 'torch': '2.1.2', 'cuda': '12.1'}
    monkeypatch.setenv('UV_CACHE_DIR', str(tmp_path / 'uv'))
    environment = make_environment({}, uv=Uv())
    mmcv = FullMmcv(environment, *MMCV)
    publish(tmp_path / 'mirror' / 'cu121' / 'torch2.1.0', python)
    publish(tmp_path / 'mirror' / 'cu118' / 'torch2.1.0', 'cp38')
    with serve(tmp_path / 'mirror') as url:
        monkeypatch.setenv('MMFAKD_MMCV_WHEELS', url)
        assert not mmcv.install_published({**torch, 'cuda': '11.8'})  # another Python's
        assert not mmcv.install_published({**torch, 'cuda': '11.7'})  # no such page
        assert 'mmcv' not in environment.dists
        assert mmcv.install_published(torch)
    assert environment.dists['mmcv'] == MMCV[1]


@pytest.mark.parametrize('whole', [True, False])
def test_source_archive_is_loaded_and_checked(tmp_path, monkeypatch, uv, whole):
    folder = tmp_path / 'index' / 'mmcv'
    folder.mkdir(parents=True)
    name = f'mmcv-{MMCV[1]}.tar.gz'
    with tarfile.open(folder / name, 'w:gz') as archive:
        archive.add(__file__, f'mmcv-{MMCV[1]}/setup.py')
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    link = f'<a href="{name}#sha256={digest if whole else "0" * 64}">{name}</a>'
    (folder / 'index.html').write_text(f'<!DOCTYPE html><html><body>{link}')
    for variable in ('UV_INDEX', 'UV_FIND_LINKS', 'UV_CONSTRAINT'):
        monkeypatch.setenv(variable, '')
    monkeypatch.setenv('UV_CACHE_DIR', str(tmp_path / 'uv'))
    with serve(tmp_path / 'index') as url:
        monkeypatch.setenv('UV_DEFAULT_INDEX', url)
        load = functools.partial(Uv().download, f'mmcv=={MMCV[1]}', tmp_path / 'down')
        if whole:
            assert load().read_bytes() == (folder / name).read_bytes()
            return
        with pytest.raises(InstallError, match='was not loaded whole, or was changed'):
            load()


def test_nobody_is_asked_for_a_wheel_that_cannot_be(monkeypatch):
    monkeypatch.setenv('MMFAKD_MMCV_WHEELS', 'not even a URL')
    assert not FullMmcv(None, *MMCV).install_published(TORCH)
    onedl = FullMmcv(None, *FAMILIES['onedl']['mmcv'])
    assert not onedl.install_published({**TORCH, 'torch': '2.1.2'})


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
    assert environment.first_failing_import('json', 'good') is None
    name, trace = environment.first_failing_import('json', 'good', 'bad', 'csv')
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
    environment = Environment(None, Path(sys.prefix), own=True)
    note = environment.prefix / 'mmfakd-install.json'
    lite = note.exists() and json.loads(note.read_text()).get('lite')
    flavour = '--lite' if lite else '--full'
    # Never start an installation from within a test.
    if not Installer(environment, options(flavour)).is_complete():
        pytest.skip('this environment was not made by the tools/install.sh of today')
    before = note.stat().st_mtime_ns
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'install.sh'), flavour],
        env={**os.environ, 'VIRTUAL_ENV': sys.prefix},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f'{sys.prefix}/bin/python\n'
    assert 'installing' not in result.stderr
    assert note.stat().st_mtime_ns == before
