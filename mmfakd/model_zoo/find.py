# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs of models, and their weights, by path, package path or model-zoo name.

Nothing but the files of the installed packages is read; no network is used, and no
package is imported.
"""

from __future__ import annotations

import os.path as osp
import re
import warnings
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from mmfakd.compat.how_to_install import how_to_install
from mmfakd.messages import near_names

from .absent import absence, absent_libraries

# Packages whose configs have names, and those whose weights have.
ZOOS = ('mmpretrain', 'mmdet', 'mmseg', 'mmfakd')
WEIGHT_ZOOS = ('mmpretrain', 'mmdet', 'mmseg', 'mmrazor', 'mmfakd')
_NEAR = 5
# Folders whose files share names with those that are meant.
_HIDDEN = {'_base_', 'deploy'}


def find_config(name: str) -> str:
    """Find the config that a user means.

    Args:
        name (str): One of

            - the path of a config file;
            - ``'package::folder/config.py'``;
            - a name of the model zoos of mmfakd, mmpretrain, mmdet and mmseg, or the
              name of one of their config files without its folder, with
              ``'package::'`` before it or not: ``'resnet18_8xb32_in1k'``,
              ``'mmdet::faster-rcnn_r50_fpn_1x_coco'``.

    Returns:
        str: The path of the file (as given, or of a config of mmfakd), or
        ``'package::folder/config.py'``.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ModuleNotFoundError: If the package of ``'package::...'`` is not installed.
        ValueError: If the name stands for several configs, which are listed.
    """
    if '::' not in name and osp.isfile(osp.expanduser(name)):
        return osp.expanduser(name)
    package, _, rest = name.rpartition('::')
    zoos = [package] if package else list(filter(find_spec, ZOOS))
    names: dict[str, list[str]] = {}
    for zoo in zoos:
        for known, configs in zoo_configs(zoo).items():
            names[known] = [*names.get(known, []), *configs]
    if not package:
        # Its own configs go before others of the same name.
        names.update(zoo_configs('mmfakd'))
    key = rest.lower()
    spellings = (key, f'{key}.py', key.removesuffix('.py'))
    found = next((names[known] for known in spellings if known in names), [])
    if len(found) == 1:
        return _inheritable(found[0])
    if found:
        raise ValueError(
            f'{name!r} stands for {len(found)} configs: {", ".join(found)}. '
            'Give one of these.'
        )
    near = _near(key, names, bool(package))
    raise FileNotFoundError(
        f'{name!r} is neither a config file nor a name in the model zoos of '
        f'{", ".join(zoos)}.'
        + (f' Near names: {", ".join(near)}.' if near else ' Check the path.')
        + _not_looked_in(package)
    )


def _not_looked_in(package: str) -> str:
    """Whose names are not known, as they are not installed."""
    absent = [] if package else absent_libraries()
    return f' Other names are not known, as {absence(absent)}.' if absent else ''


def config_file(name: str) -> str:
    """Find the file of a config.

    Args:
        name (str): As for :func:`find_config`.

    Returns:
        str: The path of the file.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ModuleNotFoundError: If the package of ``'package::...'`` is not installed.
        ValueError: If the name stands for several configs, which are listed.
    """
    package, _, path = find_config(name).rpartition('::')
    return str(package_folder(package) / 'configs' / path) if package else path


def near_configs(name: str) -> list[str]:
    """List the configs that a wrong name may have meant.

    Args:
        name (str): The path of a file, or ``'package::folder/config.py'``.

    Returns:
        list[str]: In the folder of the file, or in the package; none where nothing is
        near.
    """
    package, _, path = name.rpartition('::')
    if package:
        names = zoo_configs(package)
        near = _near(path.lower(), names, True)
        return [config for known in near for config in names[known]][:_NEAR]
    folder = Path(osp.expanduser(name)).parent
    files = {file.name: str(file) for file in folder.glob('*.py')}
    return [files[file] for file in near_names(osp.basename(name), files, _NEAR)]


def find_weights(config: str, name: str = '') -> str | None:
    """Find the model-zoo name under which a config's weights are published.

    Args:
        config (str): What :func:`find_config` returned.
        name (str): What it was given: of several weights for one config, those of
            that name go first.

    Returns:
        str | None: A name that ``teacher_ckpt`` and ``student_ckpt`` take, or None
        where the config is a user's file or nothing is published for it.
    """
    package, _, path = config.partition('::')
    if not path:
        package, path = 'mmfakd', shipped_path(config)
    published = [e['Name'] for e in entries_of(package, path) if e['Weights']]
    wanted = name.rpartition('::')[2].lower()
    named = [known for known in published if known.lower() == wanted]
    return next(iter(named + published), None)


def zoo_weights() -> dict[str, str]:
    """List the weights that the installed packages publish.

    Returns:
        dict[str, str]: Names of the model zoos of ``WEIGHT_ZOOS`` in lower case ->
        address, or path, of the first weights of that name.
    """
    return {
        entry['Name'].lower(): entry['Weights']
        for zoo in filter(find_spec, WEIGHT_ZOOS)
        for entry in zoo_entries(zoo)
        if entry['Weights']
    }


@cache
def zoo_entries(package: str) -> list[dict]:
    """Read the metafiles of an installed package.

    Args:
        package (str): Its name.

    Returns:
        list[dict]: The models of all its metafiles, as :func:`read_metafile` gives
        them; none where it has no metafiles. ``Weights`` that come with the package
        are the path of their file, whatever address they also have.
    """
    root = package_folder(package)
    index = root / 'model-index.yml'
    imported = _load(index)['Import'] if index.is_file() else []
    entries = [entry for path in imported for entry in read_metafile(root / path)]
    # The index of an editable install is a link into the checkout.
    folder = index.resolve().parent / 'weights'
    for entry in entries if package == 'mmfakd' else []:
        weights = entry['Weights']
        if weights:
            file = folder / weights.rpartition('/')[2]
            is_far = '://' in weights and not file.is_file()
            entry['Weights'] = weights if is_far else str(file)
    return entries


def entries_of(package: str, path: str) -> list[dict]:
    """Find what metafiles say of a config.

    Args:
        package (str): Whose config.
        path (str): Its path within the folder of configs.

    Returns:
        list[dict]: An entry for each of its trainings.
    """
    return [e for e in zoo_entries(package) if e['Config'] == f'configs/{path}']


def read_metafile(path: Path) -> list[dict]:
    """Read a metafile.

    Args:
        path (Path): The file.

    Returns:
        list[dict]: Its models: ``Config`` with its path in plain letters, ``Weights``
        the first or None. None where there is no such file, or it lists none, which
        a warning tells.
    """
    entries = _models(path) if path.is_file() else []
    for entry in entries:
        weights = entry.get('Weights')
        entry['Weights'] = weights[0] if isinstance(weights, list) else weights
        entry['Config'] = unquote(str(entry.get('Config')))
    return entries


def _models(path: Path) -> list[dict]:
    """The entries of a metafile, as far as it is one: it may lie beside one's own."""
    try:
        content = _load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = ' '.join(str(error).split())
    else:
        content = content if isinstance(content, dict) else {}
        models = content.get('Models')
        if isinstance(models, list):
            return [m for m in models if isinstance(m, dict) and m.get('Name')]
        # Those of collections list none.
        if 'Collections' in content:
            return []
        why = 'it has no list of `Models`'
    warnings.warn(f'{path} is left out: {why}.', stacklevel=4)
    return []


@cache
def zoo_configs(package: str) -> dict[str, list[str]]:
    """List the names of a package's configs.

    Args:
        package (str): Its name.

    Returns:
        dict[str, list[str]]: Names in lower case (of its model zoo, of files without
        folder and ending, and of files with their folder) -> configs as
        ``'package::folder/config.py'``.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    root = package_folder(package) / 'configs'
    files = sorted(file.relative_to(root) for file in root.rglob('*.py'))
    names = defaultdict(list, {str(file).lower(): [str(file)] for file in files})
    for entry in zoo_entries(package):
        path = entry['Config'].partition('configs/')[2]
        if path.lower() in names and path not in names[entry['Name'].lower()]:
            names[entry['Name'].lower()].append(path)
    # A name of the model zoo goes before files that share it.
    in_zoo = set(names)
    for file in files:
        stem = file.stem.lower()
        if stem not in in_zoo | {'__init__'} and not _HIDDEN & set(file.parts):
            names[stem].append(str(file))
    return {k: [f'{package}::{path}' for path in paths] for k, paths in names.items()}


def package_folder(package: str) -> Path:
    """Find the folder of a package's configs and metafiles.

    Args:
        package (str): Its name.

    Returns:
        Path: ``.mim`` in the package, in a checkout of mmfakd the folder around it.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    spec = find_spec(package)
    if spec is None:
        near = near_names(package, {*ZOOS, *WEIGHT_ZOOS})
        meant = (
            f' Near names: {", ".join(near)}.' if near and package not in near else ''
        )
        raise ModuleNotFoundError(
            f'the package {package!r} is not installed. Install it first, for example '
            f'with {how_to_install(package)}.{meant}'
        )
    folder = Path(str(spec.origin)).parent
    installed = folder / '.mim'
    is_checkout = package == 'mmfakd' and not installed.is_dir()
    return folder.parent if is_checkout else installed


def shipped_path(config: str) -> str:
    """Tell which of mmfakd's configs a file is.

    Args:
        config (str): Path of a config file.

    Returns:
        str: Its path within the folder ``configs``; of other files ``config``.
    """
    # The folder of an editable install is a link.
    root = (package_folder('mmfakd') / 'configs').resolve()
    path = Path(config).resolve()
    return path.relative_to(root).as_posix() if root in path.parents else config


def _load(path: Path) -> Any:
    # The one in C is many times as fast.
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    return yaml.load(path.read_text('utf-8'), loader)


def _inheritable(config: str) -> str:
    """A name that ``_base_`` takes, or the file where MMEngine takes none."""
    package, _, path = config.partition('::')
    # Folders such as `gn+ws` do not match what MMEngine looks for.
    if package != 'mmfakd' and re.match(r'\w+::\w+/\w', config):
        return config
    return str((package_folder(package) / 'configs' / path).resolve())


def _near(key: str, names: dict[str, list[str]], in_package: bool) -> list[str]:
    """Names that a user may have meant, the nearest first."""
    folder = key.rpartition('/')[0]
    # A path from nowhere in the zoos is that of a file, and like none of theirs.
    known = [
        name
        for name in names
        if name.rpartition('/')[0] == folder or (in_package and folder and '/' in name)
    ]
    begin = sorted((name for name in known if name.startswith(key)), key=len)
    return list(dict.fromkeys([*begin[:_NEAR], *near_names(key, known, _NEAR)]))
