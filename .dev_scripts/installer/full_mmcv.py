# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The full mmcv: a ready wheel where one exists, else one built here."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

from .common import InstallError, cache_dir, locked, release, say
from .environment import Environment

# Where OpenMMLab publishes compiled wheels; they end with torch 2.1 for this mmcv.
OPENMMLAB_WHEELS = 'https://download.openmmlab.com/mmcv/dist'
# Runs in the environment: what a compiled mmcv depends on.
PROBE_TORCH = """
import json, sys, sysconfig, torch
from torch.utils.cpp_extension import CUDA_HOME
gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps(dict(
    torch=torch.__version__.split('+')[0], cuda=torch.version.cuda,
    cuda_home=CUDA_HOME,
    archs=sorted({'%d.%d' % torch.cuda.get_device_capability(i) for i in range(gpus)}),
    python='cp%d%d' % sys.version_info[:2],
    platform=sysconfig.get_platform().replace('-', '_').replace('.', '_'))))
"""


def operators_kind(torch: dict[str, Any]) -> str:
    """Decide for which devices to build mmcv's operators.

    CUDA needs a GPU, or the user's word for one, and a compiler of torch's CUDA: nvcc
    alone says nothing, many machines without a GPU have it.

    Args:
        torch (dict[str, Any]): What ``PROBE_TORCH`` found.

    Returns:
        str: ``'cpu'``, or as ``'sm80+sm90'``.

    Raises:
        InstallError: Where the user asks for CUDA and names no GPU.
    """
    archs = torch['archs']
    if os.environ.get('FORCE_CUDA') == '1':
        listed = os.environ.get('TORCH_CUDA_ARCH_LIST', '')
        archs = re.findall('[^ ;,]+', listed) or archs
        if not archs:
            raise InstallError(
                'FORCE_CUDA=1 without a GPU needs TORCH_CUDA_ARCH_LIST, for example '
                "'8.0;9.0', to know which GPUs to build for."
            )
    if not archs:
        return 'cpu'
    nvcc = Path(torch['cuda_home'] or '/nonexistent') / 'bin' / 'nvcc'
    version = 'missing'
    with contextlib.suppress(OSError):
        run = subprocess.run([nvcc, '--version'], capture_output=True, text=True)
        version = ''.join(re.findall(r'release (\d+)', run.stdout)) or version
    if torch['cuda'] and version == torch['cuda'].split('.')[0]:
        return '+'.join('sm' + arch.replace('.', '') for arch in archs)
    say(
        f'WARNING: torch is built for CUDA {torch["cuda"]}, but the CUDA compiler here '
        f'is {version}. mmcv gets operators for the CPU only; install the '
        'matching CUDA toolkit and run this again to train detectors on the GPU.'
    )
    return 'cpu'


def compile_jobs() -> int:
    """Decide how many files to compile at a time: each needs up to 2 GB of memory."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    fitting = max(1, min(len(os.sched_getaffinity(0)), memory // 2_000_000_000))
    return int(os.environ.get('MAX_JOBS') or fitting)


def compile_watched(command: list[str], environ: dict[str, str], log: Path) -> None:
    """Run a compilation, with its output in a file and a line every half minute.

    Args:
        command (list[str]): The command.
        environ (dict[str, str]): Its environment variables.
        log (Path): The file.

    Raises:
        InstallError: Where it fails, with the errors.
    """
    done, last = '', time.monotonic()
    with (
        log.open('w') as file,
        subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors='replace',
        ) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            # ninja counts what is compiled: [12/131] c++ ...
            if match := re.search(r'\[(\d+)/(\d+)\] ', line):
                done = '{} of {} files'.format(*match.groups())
                if time.monotonic() - last >= 30:
                    say(f'compiling mmcv: {done}')
                    last = time.monotonic()
    if process.returncode:
        lines = log.read_text(errors='replace').splitlines()
        errors = [line for line in lines if re.search(r'\berror\b', line, re.I)]
        shown = '\n'.join(errors[:10] or lines[-20:])
        raise InstallError(f'mmcv did not compile:\n{shown}\nAll of it: {log}')
    say(f'compiled mmcv: {done}')


class FullMmcv:
    """The full mmcv of one environment.

    Args:
        environment (Environment): Where to install.
        name (str): What it is called: ``'mmcv'`` or ``'onedl-mmcv'``.
        version (str): Its version.
    """

    def __init__(self, environment: Environment, name: str, version: str) -> None:
        self.environment = environment
        self.name = name
        self.version = version
        self.stem = f'{name.replace("-", "_")}-{version}'

    def install(self, noted_kind: Optional[str]) -> str:
        """Put it in place where it lacks or does not work.

        Args:
            noted_kind (str, optional): For which devices the operators of the installed
                one are.

        Returns:
            str: For which devices its operators are, see :func:`operators_kind`.

        Raises:
            InstallError: Where it cannot be imported.
        """
        environment = self.environment
        torch = json.loads(environment.output('-c', PROBE_TORCH))
        kind = operators_kind(torch)
        if self.name in environment.dists and noted_kind in (None, kind):
            if self.failure() is None:
                return kind
            say('the installed mmcv does not work with this torch')
        if self.install_published(torch) and self.failure() is None:
            return kind
        for _ in range(2):
            wheel = self.ready_wheel(torch, kind)
            if 'mmcv-lite' in environment.dists:
                environment.remove('mmcv-lite')
            environment.pip('install', '--no-deps', '--reinstall', wheel)
            trace = self.failure()
            if trace is None:
                return kind
            # From a cache shared with another system, or not made for this one.
            say(f'{wheel} does not work here; removing it from the cache')
            wheel.unlink()
        raise InstallError(f'mmcv cannot be imported:\n{trace}')

    def failure(self) -> Optional[str]:
        """Try the installed one; return the traceback, None where it works."""
        failure = self.environment.first_failing_import('torch', 'mmcv.ops')
        return failure and failure[1]

    def key(self, torch: dict[str, Any], kind: str) -> str:
        """Name a folder after everything that a compiled mmcv depends on."""
        cuda = 'cu' + torch['cuda'].replace('.', '') if torch['cuda'] else 'nocuda'
        parts = (self.name + self.version, f'torch{torch["torch"]}', cuda)
        return '-'.join((*parts, f'ops-{kind}', torch['python'], torch['platform']))

    def install_published(self, torch: dict[str, Any]) -> bool:
        """Install OpenMMLab's wheel for this torch; tell whether there is one."""
        if self.name != 'mmcv' or release(torch['torch']) >= (2, 2):
            return False
        minor = '.'.join(torch['torch'].split('.')[:2])
        base = os.environ.get('MMFAKD_MMCV_WHEELS', OPENMMLAB_WHEELS).rstrip('/')
        cuda = 'cu' + torch['cuda'].replace('.', '') if torch['cuda'] else 'cpu'
        url = f'{base}/{cuda}/torch{minor}.0/index.html'
        say(f'asking for a ready mmcv wheel at {url}')
        wheel = (f'--find-links={url}', '--no-index', '--only-binary=mmcv')
        options = ('--no-deps', f'mmcv=={self.version}', *wheel)
        try:
            self.environment.pip('install', '--dry-run', *options, quiet=True)
        except InstallError as error:
            say(f'none there: {error}')
            return False
        if 'mmcv-lite' in self.environment.dists:
            self.environment.remove('mmcv-lite')
        self.environment.pip('install', *options)
        return True

    def ready_wheel(self, torch: dict[str, Any], kind: str) -> Path:
        """Get a wheel that fits: from the cache, or built now.

        It lands in the cache complete or not at all.

        Args:
            torch (dict[str, Any]): What ``PROBE_TORCH`` found.
            kind (str): For which devices its operators are to be.

        Returns:
            Path: The wheel in the cache.
        """
        key = self.key(torch, kind)
        shelf = cache_dir() / 'wheels' / key
        with locked(key, 'mmcv'):
            if cached := next(shelf.glob(f'{self.stem}-*.whl'), None):
                say(f'mmcv from the cache: {cached}')
                return cached
            folder = cache_dir() / 'build' / key
            folder.mkdir(parents=True, exist_ok=True)
            wheel = self.build_wheel(torch, kind, folder)
            shelf.mkdir(parents=True, exist_ok=True)
            kept = wheel.replace(shelf / wheel.name)
            shutil.rmtree(folder, ignore_errors=True)
            return kept

    def build_wheel(self, torch: dict[str, Any], kind: str, folder: Path) -> Path:
        """Compile it from its source archive.

        The sources stay in ``folder`` until the wheel is complete, so that a build that
        was interrupted goes on with the files that are not compiled yet.

        Args:
            torch (dict[str, Any]): What ``PROBE_TORCH`` found.
            kind (str): For which devices its operators are to be.
            folder (Path): The folder to build in.

        Returns:
            Path: The wheel.

        Raises:
            InstallError: Where something needed is missing, or the compilation fails.
        """
        if not shutil.which(os.environ.get('CXX', 'g++')):
            raise InstallError(
                'mmcv has to be compiled for this torch, and there is no C++ compiler. '
                'Install one (Debian: apt install build-essential) and run this again.'
            )
        jobs = compile_jobs()
        say(
            f'no ready mmcv wheel for this torch: building it (operators: {kind}, '
            f'{jobs} files at a time). Ten to thirty minutes on two cores, once; the '
            'wheel is kept.'
        )
        sources = self.unpacked_sources(torch, folder)
        self.environment.pip('install', 'ninja', 'psutil', 'setuptools', 'wheel')
        uv = self.environment.uv
        # A machine with a GPU may well build for the CPU.
        on_cpu = dict(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
        environ = dict(
            uv.environ,
            MMCV_WITH_OPS='1',
            MAX_JOBS=str(jobs),
            # Debug symbols make the library forty times as large.
            CFLAGS=os.environ.get('CFLAGS', '') + ' -g0',
            LDFLAGS=os.environ.get('LDFLAGS', '') + ' -Wl,--strip-debug',
            **(on_cpu if kind == 'cpu' else dict(FORCE_CUDA='1')),
        )
        command = (uv.command, 'build', '--wheel', sources, '-o', folder / 'wheel')
        there = ('--no-build-isolation', '--python', self.environment.executable)
        words = [str(word) for word in (*command, *there)]
        compile_watched(words, environ, folder / 'build.log')
        return next((folder / 'wheel').glob(f'{self.stem}-*.whl'))

    def unpacked_sources(self, torch: dict[str, Any], folder: Path) -> Path:
        """Fetch the source archive and unpack it, wholly or not at all."""
        sources = folder / self.stem
        if not sources.exists():
            package = f'{self.name}=={self.version}'
            archive = self.environment.uv.download(package, folder / 'download')
            unpacked = folder / 'unpacked'
            shutil.unpack_archive(archive, unpacked)
            setup = unpacked / self.stem / 'setup.py'
            # In a function, Python 3.13 no longer leaves names of exec in locals().
            text = setup.read_text().replace("'exec'))", "'exec'), globals())")
            text = text.replace("locals()['__version__']", "globals()['__version__']")
            if release(torch['torch']) >= (2, 14):  # its headers need the newer C++
                text = text.replace('c++17', 'c++20')
            setup.write_text(text)
            os.replace(unpacked / sources.name, sources)
        return sources
