# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Version gates: what was found, what is wanted, what to do."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import NamedTuple, Optional

from mmfakd.version import __version__, parse_version


class Requirement(NamedTuple):
    """Versions of one library that mmfakd works with.

    Args:
        name (str): Name of the distribution.
        minimum (str): First version that works, ``'0'`` for any.
        below (str, optional): First version that does not work any more.
        reason (str): Where the bounds come from.
        required (bool): Whether mmfakd needs the library at all. Defaults to True.
    """

    name: str
    minimum: str
    below: Optional[str]
    reason: str
    required: bool = True

    def __str__(self) -> str:
        lower = '' if self.minimum == '0' else f'>={self.minimum}'
        return f'{self.name}{lower}' + (f',<{self.below}' if self.below else '')

    def accepts(self, version: str) -> bool:
        """Tell whether a version lies within the bounds.

        Args:
            version (str): For example ``'2.11.0+cu130'``.

        Returns:
            bool: Whether it does.
        """
        low, high = parse_version(self.minimum), parse_version(self.below or '9999')
        return low <= parse_version(version) < high


# As in the files of requirements/, a test compares them.
REQUIREMENTS = (
    Requirement('torch', '2.1', None, 'mmfakd is tested from 2.1 on'),
    Requirement(
        'mmengine',
        '0.10.0',
        '0.11.0',
        '0.11 looks for installed packages in the wrong folder, which breaks '
        'inheriting their configs',
    ),
    Requirement('mmcv', '2.1.0', '2.2.0', 'mmrazor and mmdet refuse 2.2'),
    Requirement('mmrazor', '1.0.0', '1.1.0', 'mmfakd extends its classes'),
    Requirement('joblib', '0', None, 'mmrazor imports it without declaring it'),
    # Without these the registries, algorithms and layers still work.
    Requirement(
        'safetensors', '0.4', None, 'mmfakd is tested from 0.4 on', required=False
    ),
    Requirement(
        'mmpretrain', '1.2.0', '1.3.0', 'mmfakd is tested with 1.2', required=False
    ),
    Requirement('mmdet', '3.3.0', '3.4.0', 'mmfakd is tested with 3.3', required=False),
    Requirement(
        'mmsegmentation', '1.2.2', '1.3.0', 'mmfakd is tested with 1.2', required=False
    ),
)

# Modules that are not called as their distribution is.
MODULES = dict(mmsegmentation='mmseg')

# Distributions that hold the module mmcv: with compiled operators, without, and
# the name that the first one had before version 2.
MMCV_DISTRIBUTIONS = ('mmcv', 'mmcv-lite', 'mmcv-full')


def installed_versions() -> dict[str, str]:
    """Collect the versions that :func:`find_problems` judges.

    Returns:
        dict[str, str]: Distribution names and versions; what is not installed is left
        out. ``'python'`` is the interpreter, and ``'pkg_resources'`` stands for the
        module of this name with the version of setuptools.
    """
    versions = {'python': '.'.join(map(str, sys.version_info[:3]))}
    names = [requirement.name for requirement in REQUIREMENTS]
    for name in (*names, *MMCV_DISTRIBUTIONS, 'numpy', 'setuptools'):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    for name in names:
        # A source checkout on PYTHONPATH has no metadata.
        installed = MMCV_DISTRIBUTIONS if name == 'mmcv' else (name,)
        module = MODULES.get(name, name)
        if versions.keys().isdisjoint(installed) and find_spec(module):
            versions[name] = getattr(import_module(module), '__version__', '0')
    if find_spec('pkg_resources'):
        versions['pkg_resources'] = versions.get('setuptools', '0')
    return versions


def find_problems(versions: Mapping[str, str]) -> list[str]:
    """Compare versions with what mmfakd needs.

    Args:
        versions (Mapping[str, str]): What is installed, as
            :func:`installed_versions` returns it.

    Returns:
        list[str]: A text for each problem: what was found, what is wanted, what to do.
    """
    problems = []
    if parse_version(versions['python']) < (3, 9):
        problems.append(
            f'Python {versions["python"]} runs; python>=3.9 is wanted. Make an '
            'environment with a newer Python, 3.11 for example.'
        )

    mmcvs = [name for name in MMCV_DISTRIBUTIONS if name in versions]
    if len(mmcvs) > 1:
        problems.append(
            ' and '.join(f'{name} {versions[name]}' for name in mmcvs)
            + ' are installed together; exactly one is wanted, because they overwrite '
            f"each other's files. Run `pip uninstall -y {' '.join(mmcvs)}`, then "
            '`pip install mmcv-lite==2.1.0` for classification, or install mmcv==2.1.0 '
            'with its operators for detection.'
        )

    for requirement in REQUIREMENTS:
        name = requirement.name
        if name == 'mmcv' and mmcvs:
            name = mmcvs[0]
        version = versions.get(name)
        if version is None and requirement.required:
            found = f'{name} is not installed'
        elif version is not None and not requirement.accepts(version):
            found = f'{name} {version} is installed'
        else:
            continue
        # Classification needs none of mmcv's compiled operators.
        advice = str(requirement).replace('mmcv', 'mmcv-lite')
        problems.append(
            f'{found}; {requirement} is wanted ({requirement.reason}). Run '
            f'`pip install "{advice}"`.'
        )

    # What is missing is told above, or not needed.
    torch, numpy = versions.get('torch', '3'), versions.get('numpy', '1')
    if parse_version(torch) < (2, 3) and parse_version(numpy) >= (2,):
        problems.append(
            f'numpy {numpy} is installed; numpy<2 is wanted with torch {torch} (torch '
            'before 2.3 is built for numpy 1). Run `pip install "numpy<2"`.'
        )

    if 'pkg_resources' not in versions:
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
        ImportError: If something is missing, too old, too new or installed twice;
            the message lists every problem with the versions found and wanted and
            the command that helps.
    """
    problems = find_problems(installed_versions())
    if problems:
        raise ImportError(
            f'mmfakd {__version__} cannot run in this environment '
            f'({sys.executable}):\n- ' + '\n- '.join(problems)
        )
