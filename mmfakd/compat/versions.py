# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Version gates: what was found, what is wanted, what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mmfakd.version import __version__, parse_version

from .families import COMMON, FAMILIES, ONEDL, STOCK, families_in
from .family import Family, installable, pip_install

# Told, not judged. `mim` comes with a family, too, but mmfakd does not use it.
_TOLD = ('numpy', 'setuptools', 'openmim', 'onedl-mim')
_VERSION = re.compile(r'^__version__\s*(?::\s*\w+\s*)?=\s*[\'"]([^\'"]+)', re.MULTILINE)
# As the onedl family writes it: without metadata its modules cannot be imported.
_FROM_METADATA = re.compile(r'^__version__ = version\([\'"]onedl-', re.MULTILINE)
_NO_METADATA = 'without its metadata'


def installed_versions() -> dict[str, str]:
    """Collect the versions that :func:`find_problems` judges; nothing is imported.

    Returns:
        dict[str, str]: Distribution names and versions; what is not installed is left
        out. ``'python'`` is the interpreter, and ``'pkg_resources'`` stands for the
        module of this name with the version of setuptools.
    """
    versions = {'python': '.'.join(map(str, sys.version_info[:3]))}
    for requirement in COMMON:
        _add(versions, requirement.name)
    for family in FAMILIES:
        for name in (*(r.name for r in family.requirements), *family.others):
            _add(versions, name)
    for name in _TOLD:
        _add(versions, name)
    _add_sources(versions)
    if find_spec('pkg_resources'):
        versions['pkg_resources'] = versions.get('setuptools', '0')
    return versions


def _add(versions: dict[str, str], name: str) -> None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return
    # A removal that was interrupted leaves a folder without metadata in it.
    if version:
        versions[name] = version


def _add_sources(versions: dict[str, str]) -> None:
    """Add checkouts on PYTHONPATH, which have no metadata."""
    for requirement in COMMON:
        if requirement.name not in versions:
            version = _source_version(requirement.imported)
            if version:
                versions[requirement.name] = version
    known = {r.imported for f in FAMILIES for r in f.requirements if r.name in versions}
    if not versions.keys().isdisjoint(STOCK.others):
        known.add('mmcv')
    for stock, onedl in zip(STOCK.requirements, ONEDL.requirements):
        version = None if stock.imported in known else _source_version(stock.imported)
        if version:
            # Versions of the families do not overlap; those of neither count as stock.
            is_onedl = version == _NO_METADATA or onedl.accepts(version)
            versions[(onedl if is_onedl else stock).name] = version


def _source_version(module: str) -> str | None:
    """Read the version of a module off its files, None if there is no module.

    An import of mmcv takes seconds, and one that fails would hide what the gate says.
    """
    spec = find_spec(module)
    # A folder of that name in the working directory is no library.
    if spec is None or spec.origin is None:
        return None
    for name in ('version.py', '__init__.py'):
        file = Path(spec.origin).with_name(name)
        text = file.read_text('utf-8', 'replace') if file.is_file() else ''
        if match := _VERSION.search(text):
            return match[1]
        if _FROM_METADATA.search(text):
            return _NO_METADATA
    return 'without a version'


def _is_before(version: str, *numbers: int) -> bool:
    try:
        return parse_version(version) < numbers
    except ValueError:
        return False


def find_problems(versions: Mapping[str, str]) -> list[str]:
    """Compare versions with what mmfakd needs.

    Args:
        versions (Mapping[str, str]): What is installed, as
            :func:`installed_versions` returns it.

    Returns:
        list[str]: A text for each problem: what was found, what is wanted, what to do.
    """
    families = families_in(versions)
    return [
        *_problems_of_python(versions),
        *_problems_of_families(versions, families),
        *_problems_of_libraries(versions, families),
        *_problems_of_helpers(versions, families),
    ]


def _problems_of_python(versions: Mapping[str, str]) -> list[str]:
    if parse_version(versions['python']) >= (3, 9):
        return []
    return [
        f'Python {versions["python"]} runs; python>=3.9 is wanted. Make an '
        'environment with a newer Python, 3.11 for example.'
    ]


def _problems_of_families(
    versions: Mapping[str, str], families: list[Family]
) -> list[str]:
    """Whether there is exactly one family, and one distribution of each module."""
    if not families:
        ways = ' or '.join(f'{f.to_install()} ({f.title})' for f in FAMILIES)
        return [
            'mmengine is not installed, and none of the libraries around it; one '
            f'family of them is wanted. Run {ways}.'
        ]
    if len(families) > 1:
        return [_mixture(versions)]
    (family,) = families
    flavours = [n for n in ('mmcv', *family.others) if n in versions]
    if len(flavours) < 2:
        return []
    return [
        ' and '.join(f'{name} {versions[name]}' for name in flavours)
        + ' are installed together; exactly one is wanted, because they overwrite each '
        f"other's files. Run `pip uninstall -y {' '.join(flavours)}`, then "
        '`pip install mmcv-lite==2.1.0` for classification, or install mmcv==2.1.0 '
        'with its operators for detection.'
    ]


def _mixture(versions: Mapping[str, str]) -> str:
    """What is said of two families in one environment."""
    found = {family.name: family.installed(versions) for family in FAMILIES}
    modules = [
        {r.imported for r in family.requirements if r.name in found[family.name]}
        | ({'mmcv'} if not versions.keys().isdisjoint(family.others) else set())
        for family in FAMILIES
    ]
    twice = sorted(modules[0] & modules[1])
    reason = (
        f"they overwrite each other's files ({', '.join(twice)})"
        if twice
        else 'libraries of one do not work with those of the other'
    )
    listed = ' and '.join(
        ', '.join(f'{name} {versions[name]}' for name in found[family.name])
        + f' ({family.name}: {family.title})'
        for family in FAMILIES
    )
    wanted = frozenset(modules[0] | modules[1])
    ways = ', or '.join(f'{f.to_install(wanted)} for {f.title}' for f in FAMILIES)
    return (
        f'two families of libraries are mixed: {listed} are installed together; one is '
        f'wanted, because {reason}. Run `pip uninstall -y '
        f'{" ".join(name for f in found.values() for name in f)}`, then {ways}.'
    )


def _problems_of_libraries(
    versions: Mapping[str, str], families: list[Family]
) -> list[str]:
    """Whether each library is there, as far as it is needed, and within its bounds."""
    # Of what is mixed nothing can be said before it is sorted out.
    of_family = families[0].requirements if len(families) == 1 else ()
    problems = []
    for requirement in (*COMMON, *of_family):
        name = requirement.name
        if name == 'mmcv':
            flavours = [n for n in (name, *STOCK.others) if n in versions]
            name = flavours[0] if flavours else name
        version = versions.get(name)
        if version is None and requirement.required:
            found = f'{name} is not installed'
        elif version is not None and not requirement.accepts(version):
            found = f'{name} {version} is installed'
        else:
            continue
        problems.append(
            f'{found}; {requirement} is wanted ({requirement.reason}). Run '
            f'{pip_install(installable(requirement))}.'
        )
    return problems


def _problems_of_helpers(
    versions: Mapping[str, str], families: list[Family]
) -> list[str]:
    """Whether numpy fits torch, and MMEngine finds ``pkg_resources``."""
    problems = []
    # What is missing is told elsewhere, or not needed.
    torch, numpy = versions.get('torch', '3'), versions.get('numpy', '1')
    if _is_before(torch, 2, 3) and not _is_before(numpy, 2):
        problems.append(
            f'numpy {numpy} is installed; numpy<2 is wanted with torch {torch} (torch '
            'before 2.3 is built for numpy 1). Run `pip install "numpy<2"`.'
        )
    if families == [STOCK] and 'pkg_resources' not in versions:
        setuptools = versions.get('setuptools')
        found = f'setuptools {setuptools} is' if setuptools else 'setuptools is not'
        problems.append(
            f'{found} installed and has no pkg_resources; setuptools<82 is wanted '
            '(mmengine 0.10 imports pkg_resources to find the configs of other '
            'packages). Run `pip install "setuptools<82"`.'
        )
    return problems


def check_environment() -> None:
    """Check the versions of Python and of the libraries mmfakd stands on.

    Reads the metadata of the installed distributions and imports none of them.

    Raises:
        ImportError: If something is missing, too old, too new, installed twice or of
            two families; the message lists every problem with the versions found and
            wanted and the command that helps.
    """
    problems = find_problems(installed_versions())
    if problems:
        raise ImportError(
            f'mmfakd {__version__} cannot run in this environment '
            f'({sys.executable}):\n- ' + '\n- '.join(problems)
        )
