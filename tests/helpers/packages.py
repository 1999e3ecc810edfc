# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The package as others build and install it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In a checkout, beside what git tracks.
UNWANTED = (
    '.git', '.venv*', '.nox', '.*_cache', '.mim', '.dist_test', 'build', 'dist', 'data',
    'work_dirs', '*.egg-info', '__pycache__', '.coverage', 'PKG-INFO',
)  # fmt: skip
# Further down: what runs, installs and builds of the site have left.
MADE = ('__pycache__', '.mim', '_build', 'generated')


def copy_sources(target, *left_out):
    """What a clone contains, without ``left_out``; returns the folder."""

    def unwanted(folder, names):
        # tests/data and mmfakd's own modules have names of this kind, too.
        patterns = (*UNWANTED, *left_out) if Path(folder) == ROOT else MADE
        return shutil.ignore_patterns(*patterns)(folder, names)

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


def install(package, target, index=False):
    """Installs a wheel or sources, and nothing else, into a folder.

    Sources are built with what an index has, if ``index`` says so.
    """
    options = ['--no-deps', '--quiet', '--target', str(target)]
    if not index:
        options.append('--no-index')
    command = [sys.executable, '-m', 'pip', 'install', *options, str(package)]
    subprocess.run(command, check=True)
    return target


def contents(wheel):
    """Names and bytes of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_metadata(folder, name, version):
    """Put the metadata of a distribution where an interpreter finds it."""
    metadata = folder / f'{name.replace("-", "_")}-{version}.dist-info' / 'METADATA'
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
