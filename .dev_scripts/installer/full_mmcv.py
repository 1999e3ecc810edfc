# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The full mmcv: a ready wheel where one exists, else one built here."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from .common import InstallError, cache_dir, clean_environ, locked, run_watched, say
from .environment import Environment
from .versions import release

MMCV = '2.1.0'
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


def wheel_key(torch: dict[str, Any], kind: str) -> str:
    """Name everything that a compiled mmcv depends on.

    Args:
        torch (dict[str, Any]): What ``PROBE_TORCH`` found.
        kind (str): For which devices its operators are.

    Returns:
        str: The name of a folder.
    """
    parts = (f'mmcv{MMCV}', f'torch{torch["torch"]}', _cuda(torch) or 'nocuda')
    return '-'.join((*parts, f'ops-{kind}', torch['python'], torch['platform']))


def _cuda(torch: dict[str, Any]) -> str:
    return 'cu' + torch['cuda'].replace('.', '') if torch['cuda'] else ''


def download_wheel(
    environment: Environment, torch: dict[str, Any], target: Path
) -> Optional[Path]:
    """Download OpenMMLab's wheel for this torch.

    Args:
        environment (Environment): Where it is to be installed.
        torch (dict[str, Any]): What ``PROBE_TORCH`` found.
        target (Path): The folder for it.

    Returns:
        Path | None: The wheel, None where there is none or no connection.
    """
    if release(torch['torch']) >= (2, 2):
        return None
    minor = '.'.join(torch['torch'].split('.')[:2])
    base = os.environ.get('MMFAKD_MMCV_WHEELS', OPENMMLAB_WHEELS).rstrip('/')
    url = f'{base}/{_cuda(torch) or "cpu"}/torch{minor}.0/index.html'
    say(f'asking for a ready mmcv wheel at {url}')
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            listed = page.read().decode(errors='replace')
    except (OSError, ValueError) as error:
        say(f'no answer ({error})')
        return None
    if not re.search(rf'mmcv-{re.escape(MMCV)}-{torch["python"]}-', listed):
        say('none there for this Python')
        return None
    options = ('--no-deps', '--no-index', '--no-cache-dir', '--only-binary', ':all:')
    source = ('--find-links', url, '-d', target, f'mmcv=={MMCV}')
    with contextlib.suppress(InstallError):
        environment.pip('download', *options, *source)
        return next(target.glob('mmcv-*.whl'), None)
    return None


def compile_jobs() -> int:
    """Decide how many files to compile at a time.

    Returns:
        int: ``MAX_JOBS``, by default as many as there are cores, if the memory
        suffices: a file of mmcv needs up to 2 GB.
    """
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    fitting = max(1, min(len(os.sched_getaffinity(0)), memory // 2_000_000_000))
    return int(os.environ.get('MAX_JOBS') or fitting)


def build_wheel(environment: Environment, kind: str, folder: Path) -> Path:
    """Compile mmcv from its source archive.

    The sources stay in ``folder`` until the wheel is complete, so that a build that was
    interrupted goes on with the files that are not compiled yet.

    Args:
        environment (Environment): Where it is to be installed.
        kind (str): For which devices its operators are to be.
        folder (Path): The folder to build in.

    Returns:
        Path: The wheel.

    Raises:
        InstallError: Where something needed is missing, or the compilation fails.
    """
    needed = 'mmcv has to be compiled for this torch, and '
    if not shutil.which(os.environ.get('CXX', 'g++')):
        raise InstallError(
            f'{needed}there is no C++ compiler. Install one (Debian: apt install '
            'build-essential) and run this again.'
        )
    if not (environment.include / 'Python.h').exists():
        raise InstallError(
            f'{needed}{environment.include} has no Python.h. Install the headers '
            '(Debian: apt install python3-dev) and run this again.'
        )
    jobs = compile_jobs()
    say(
        f'no ready mmcv wheel for this torch: building it (operators: {kind}, {jobs} '
        'files at a time). About ten minutes on two cores, once; the wheel is kept.'
    )
    sources = unpacked_sources(environment, folder)
    # A machine with a GPU may well build for the CPU.
    on_cpu = dict(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
    environ = clean_environ(
        MMCV_WITH_OPS='1',
        MAX_JOBS=str(jobs),
        # Debug symbols make the library forty times as large.
        CFLAGS=os.environ.get('CFLAGS', '') + ' -g0',
        LDFLAGS=os.environ.get('LDFLAGS', '') + ' -Wl,--strip-debug',
        **(on_cpu if kind == 'cpu' else dict(FORCE_CUDA='1')),
    )
    out = folder / 'wheel'
    # The cache of pip does not know for which torch a wheel was built.
    options = ('--no-deps', '--no-build-isolation', '--no-cache-dir')
    pip = (environment.executable, '-m', 'pip', '--no-input')
    command = [*pip, 'wheel', '-v', *options, '-w', out, sources]
    compile_watched([str(word) for word in command], environ, folder / 'build.log')
    return next(out.glob('mmcv-*.whl'))


def unpacked_sources(environment: Environment, folder: Path) -> Path:
    """Fetch mmcv's source archive and unpack it, wholly or not at all.

    Args:
        environment (Environment): Where it is to be installed.
        folder (Path): The folder to build in.

    Returns:
        Path: The folder of the sources.
    """
    sources = folder / f'mmcv-{MMCV}'
    if not sources.exists():
        fetched, unpacked = folder / 'download', folder / 'unpacked'
        only_source = ('--no-deps', '--no-binary', 'mmcv', '--no-build-isolation')
        environment.pip('download', *only_source, '-d', fetched, f'mmcv=={MMCV}')
        shutil.unpack_archive(next(fetched.glob('mmcv-*.tar.gz')), unpacked)
        os.replace(unpacked / sources.name, sources)
    return sources


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
    with log.open('w') as file:

        def watch(line: str) -> None:
            nonlocal done, last
            file.write(line)
            # ninja counts what is compiled: [12/131] c++ ...
            if match := re.match(r'\s*\[(\d+)/(\d+)\]', line):
                done = '{} of {} files'.format(*match.groups())
                if time.monotonic() - last >= 30:
                    say(f'compiling mmcv: {done}')
                    last = time.monotonic()

        failed = run_watched(command, environ, watch)
    if failed:
        lines = log.read_text(errors='replace').splitlines()
        errors = [line for line in lines if re.search(r'\berror\b', line, re.I)]
        shown = '\n'.join(errors[:10] or lines[-20:])
        raise InstallError(f'mmcv did not compile:\n{shown}\nAll of it: {log}')
    say(f'compiled mmcv: {done}')


def ready_wheel(
    environment: Environment,
    torch: dict[str, Any],
    kind: str,
    constraints: Path,
    published: bool = True,
) -> Path:
    """Get a wheel of the full mmcv that fits: cached, published, or built now.

    It lands in the cache complete or not at all.

    Args:
        environment (Environment): Where it is to be installed.
        torch (dict[str, Any]): What ``PROBE_TORCH`` found.
        kind (str): For which devices its operators are to be.
        constraints (Path): The constraints for pip.
        published (bool): Whether OpenMMLab's own may serve. Defaults to True.

    Returns:
        Path: The wheel in the cache.
    """
    key = wheel_key(torch, kind)
    shelf = cache_dir() / 'wheels' / key
    with locked(key, 'mmcv'):
        if cached := next(shelf.glob(f'mmcv-{MMCV}-*.whl'), None):
            say(f'mmcv from the cache: {cached}')
            return cached
        folder = cache_dir() / 'build' / key
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / 'download'
        wheel = download_wheel(environment, torch, target) if published else None
        if wheel is None:
            environment.pip('install', '-c', constraints, 'ninja', 'wheel')
            wheel = build_wheel(environment, kind, folder)
        shelf.mkdir(parents=True, exist_ok=True)
        kept = wheel.replace(shelf / wheel.name)
        shutil.rmtree(folder, ignore_errors=True)
        return kept


def remove_mmcv(environment: Environment, flavours: Sequence[str]) -> None:
    """Uninstall flavours of mmcv, with whatever is left in their common folder.

    Args:
        environment (Environment): Where they are installed.
        flavours (Sequence[str]): Which of them.
    """
    say(f'removing {" and ".join(flavours)}')
    environment.pip('uninstall', '-y', *flavours)
    shutil.rmtree(environment.site / 'mmcv', ignore_errors=True)
    environment.refresh()


def install_full_mmcv(
    environment: Environment, constraints: Path, noted_kind: Optional[str]
) -> str:
    """Put the full mmcv in place where it lacks or does not work.

    Args:
        environment (Environment): Where to install.
        constraints (Path): The constraints for pip.
        noted_kind (str, optional): For which devices the operators of the installed one
            are.

    Returns:
        str: For which devices its operators are, see :func:`operators_kind`.

    Raises:
        InstallError: Where it cannot be imported.
    """
    torch = json.loads(environment.output('-c', PROBE_TORCH))
    kind = operators_kind(torch)
    needed = ['torch', 'mmcv.ops']
    if 'mmcv' in environment.dists and noted_kind in (None, kind):
        if environment.first_failing_import(needed) is None:
            return kind
        say('the installed mmcv does not work with this torch')
    for published in (True, False):
        wheel = ready_wheel(environment, torch, kind, constraints, published)
        if 'mmcv-lite' in environment.dists:
            remove_mmcv(environment, ['mmcv-lite'])
        environment.pip('install', '--no-deps', '--force-reinstall', wheel)
        environment.refresh()
        failure = environment.first_failing_import(needed)
        if failure is None:
            return kind
        _, trace = failure
        # From a cache shared with another system, or not made for this one.
        say(f'{wheel} does not work here; removing it from the cache')
        wheel.unlink()
    raise InstallError(f'mmcv cannot be imported:\n{trace}')
