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

from .dev_scripts.installer.common import (
    InstallError,
    cache_dir,
    clean_environ,
    locked,
    release,
    run_watched,
    say,
)
from .dev_scripts.installer.environment import Environment

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
    """For which devices to build mmcv's operators: ``'cpu'`` or ``'sm80+sm90'``.

    CUDA needs a GPU, or the user's word for one, and a compiler of torch's CUDA: nvcc
    alone says nothing, many machines without a GPU have it.
    """
    archs = torch['archs']
    if os.environ.get('FORCE_CUDA') == '1':
        listed = re.split(r'[ ;,]+', os.environ.get('TORCH_CUDA_ARCH_LIST', '').strip())
        archs = [arch for arch in listed if arch] or archs
        if not archs:
            raise InstallError(
                'FORCE_CUDA=1 without a GPU needs TORCH_CUDA_ARCH_LIST, for example '
                "'8.0;9.0', to know which GPUs to build for."
            )
    if not archs:
        return 'cpu'
    nvcc = Path(torch['cuda_home'] or '/nonexistent') / 'bin' / 'nvcc'
    version = ''
    with contextlib.suppress(OSError):
        run = subprocess.run([nvcc, '--version'], capture_output=True, text=True)
        match = re.search(r'release (\d+)', run.stdout)
        version = match.group(1) if match else ''
    if torch['cuda'] and version == torch['cuda'].split('.')[0]:
        return '+'.join('sm' + arch.replace('.', '') for arch in archs)
    say(
        f'WARNING: torch is built for CUDA {torch["cuda"]}, but the CUDA compiler here '
        f'is {version or "missing"}. mmcv gets operators for the CPU only; install the '
        'matching CUDA toolkit and run this again to train detectors on the GPU.'
    )
    return 'cpu'


def wheel_key(torch: dict[str, Any], kind: str) -> str:
    """Everything that a compiled mmcv depends on, as the name of a folder."""
    cuda = 'cu' + torch['cuda'].replace('.', '') if torch['cuda'] else 'nocuda'
    parts = (f'mmcv{MMCV}', f'torch{torch["torch"]}', cuda, f'ops-{kind}')
    return '-'.join((*parts, torch['python'], torch['platform']))


def download_wheel(
    environment: Environment, torch: dict[str, Any], target: Path
) -> Optional[Path]:
    """OpenMMLab's wheel for this torch, None where there is none or no connection."""
    if release(torch['torch']) >= (2, 2):
        return None
    cuda = 'cu' + torch['cuda'].replace('.', '') if torch['cuda'] else 'cpu'
    minor = '.'.join(torch['torch'].split('.')[:2])
    base = os.environ.get('MMFAKD_MMCV_WHEELS', OPENMMLAB_WHEELS).rstrip('/')
    url = f'{base}/{cuda}/torch{minor}.0/index.html'
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
    try:
        environment.pip(
            'download', *options, '--find-links', url, '-d', target, f'mmcv=={MMCV}'
        )
    except InstallError:
        return None
    return next(target.glob('mmcv-*.whl'), None)


def compile_jobs() -> int:
    """How many files to compile at a time: all cores, if the memory suffices.

    A file of mmcv needs up to 2 GB.
    """
    if os.environ.get('MAX_JOBS'):
        return int(os.environ['MAX_JOBS'])
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(len(os.sched_getaffinity(0)), memory // 2_000_000_000))


def build_wheel(environment: Environment, kind: str, folder: Path) -> Path:
    """Compiles mmcv from its source archive.

    The sources stay in ``folder`` until the wheel is complete, so that a build that was
    interrupted goes on with the files that are not compiled yet.

    Raises:
        InstallError: Where something needed is missing, or the compilation fails.
    """
    if not shutil.which(os.environ.get('CXX', 'g++')):
        raise InstallError(
            'mmcv has to be compiled for this torch, and there is no C++ compiler. '
            'Install one (Debian: apt install build-essential) and run this again.'
        )
    if not (environment.include / 'Python.h').exists():
        raise InstallError(
            f'mmcv has to be compiled for this torch, and {environment.include} has no '
            'Python.h. Install the headers (Debian: apt install python3-dev) and run '
            'this again.'
        )
    jobs = compile_jobs()
    say(
        f'no ready mmcv wheel for this torch: building it (operators: {kind}, {jobs} '
        'files at a time). About ten minutes on two cores, once; the wheel is kept.'
    )
    sources = folder / f'mmcv-{MMCV}'
    archive = folder / f'mmcv-{MMCV}.tar.gz'
    if not archive.exists():
        fetched = folder / 'download'
        only_source = ('--no-deps', '--no-binary', 'mmcv', '--no-build-isolation')
        environment.pip('download', *only_source, '-d', fetched, f'mmcv=={MMCV}')
        os.replace(next(fetched.glob('mmcv-*.tar.gz')), archive)
    if not sources.exists():
        shutil.unpack_archive(archive, folder / 'unpacked')
        os.replace(folder / 'unpacked' / sources.name, sources)

    environ = clean_environ(
        MMCV_WITH_OPS='1',
        MAX_JOBS=str(jobs),
        # Debug symbols make the library forty times as large.
        CFLAGS=os.environ.get('CFLAGS', '') + ' -g0',
        LDFLAGS=os.environ.get('LDFLAGS', '') + ' -Wl,--strip-debug',
    )
    if kind == 'cpu':
        environ.update(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
    else:
        environ.update(FORCE_CUDA='1')
    out = folder / 'wheel'
    # The cache of pip does not know for which torch a wheel was built.
    options = ('--no-deps', '--no-build-isolation', '--no-cache-dir')
    command = ['-m', 'pip', '--no-input', 'wheel', '-v', *options, '-w', out, sources]
    log = folder / 'build.log'
    compile_watched([str(environment.executable), *map(str, command)], environ, log)
    return next(out.glob('mmcv-*.whl'))


def compile_watched(command: list[str], environ: dict[str, str], log: Path) -> None:
    """Runs a compilation, with its output in a file and a line every half minute.

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
    """A wheel of the full mmcv that fits: cached, published, or built now.

    It lands in the cache complete or not at all. With ``published`` False OpenMMLab's
    are left aside.
    """
    key = wheel_key(torch, kind)
    shelf = cache_dir() / 'wheels' / key
    with locked(key, 'mmcv'):
        cached = next(shelf.glob(f'mmcv-{MMCV}-*.whl'), None)
        if cached:
            say(f'mmcv from the cache: {cached}')
            return cached
        folder = cache_dir() / 'build' / key
        folder.mkdir(parents=True, exist_ok=True)
        wheel = None
        if published:
            wheel = download_wheel(environment, torch, folder / 'download')
        if wheel is None:
            environment.pip('install', '-c', constraints, 'ninja', 'wheel')
            wheel = build_wheel(environment, kind, folder)
        shelf.mkdir(parents=True, exist_ok=True)
        kept = shelf / wheel.name
        os.replace(wheel, kept)
        shutil.rmtree(folder, ignore_errors=True)
        return kept


def remove_mmcv(environment: Environment, flavours: Sequence[str]) -> None:
    """Uninstalls flavours of mmcv, with whatever is left in their common folder."""
    say(f'removing {" and ".join(flavours)}')
    environment.pip('uninstall', '-y', *flavours)
    shutil.rmtree(environment.site / 'mmcv', ignore_errors=True)
    environment.refresh()


def install_full_mmcv(
    environment: Environment, constraints: Path, noted_kind: Optional[str]
) -> str:
    """Puts the full mmcv in place where it lacks or does not work.

    Returns:
        For which devices its operators are, see :func:`operators_kind`.
    """
    torch = json.loads(environment.output('-c', PROBE_TORCH))
    kind = operators_kind(torch)
    needed = ['torch', 'mmcv.ops']
    if 'mmcv' in environment.dists and noted_kind in (None, kind):
        if environment.first_failing_import(needed) is None:
            return kind
        say('the installed mmcv does not work with this torch')
    trace = ''
    for published in (True, False):
        wheel = ready_wheel(environment, torch, kind, constraints, published)
        if 'mmcv-lite' in environment.dists:
            remove_mmcv(environment, ['mmcv-lite'])
        environment.pip('install', '--no-deps', '--force-reinstall', wheel)
        environment.refresh()
        failure = environment.first_failing_import(needed)
        if failure is None:
            return kind
        trace = failure[1]
        # From a cache shared with another system, or not made for this one.
        say(f'{wheel} does not work here; removing it from the cache')
        wheel.unlink()
    raise InstallError(f'mmcv cannot be imported:\n{trace}')
