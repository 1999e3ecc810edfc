# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs of models by path, package path or model-zoo name."""

from __future__ import annotations

import os.path as osp
import re
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import mmengine

from .shipped import config_folder

ZOOS = ('mmpretrain', 'mmdet')
_NEAR = 5
# Folders whose files share names with those that are meant.
_HIDDEN = {'_base_', 'deploy'}


def find_config(name: str) -> str:
    """Find the config that a user means.

    Nothing but the files of the installed packages is read; no network is used.

    Args:
        name (str): One of

            - the path of a config file;
            - ``'package::folder/config.py'``;
            - a name of the model zoos of mmpretrain and mmdet, or the name of one of
              their config files without its folder, with ``'package::'`` before it or
              not: ``'resnet18_8xb32_in1k'``, ``'mmdet::faster-rcnn_r50_fpn_1x_coco'``.

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
    if package and find_spec(package) is None:
        raise ModuleNotFoundError(
            f'{name!r}: the package {package!r} is not installed. Install it first, '
            f'for example with `mim install {package}`.'
        )
    zoos = (package,) if package else tuple(filter(find_spec, ZOOS))
    names: dict[str, list[str]] = {}
    for zoo in zoos:
        for known, configs in zoo_configs(zoo).items():
            names.setdefault(known, []).extend(configs)
    key = rest.lower()
    found = next(
        (names[k] for k in (key, f'{key}.py', key.removesuffix('.py')) if k in names),
        [],
    )
    if len(found) == 1:
        return _inheritable(found[0])
    if found:
        raise ValueError(
            f'{name!r} stands for {len(found)} configs: {", ".join(found)}. '
            'Give one of these.'
        )
    near = _near(key, names)
    raise FileNotFoundError(
        f'{name!r} is neither a config file nor a name in the model zoos of '
        f'{" and ".join(zoos)}.'
        + (f' Near names: {", ".join(near)}.' if near else ' Check the path.')
    )


def find_weights(config: str, name: str = '') -> str | None:
    """Find the model-zoo name under which a config's weights are published.

    Args:
        config (str): What :func:`find_config` returned.
        name (str): What it was given: of several weights for one config, those of
            that name go first.

    Returns:
        str | None: A name that ``teacher_ckpt`` and ``student_ckpt`` take, or None
        where the config is a file or nothing is published for it.
    """
    package, _, path = config.partition('::')
    if not path:
        return None
    published = [
        entry['Name']
        for entry in zoo_entries(package)
        if str(entry.get('Config')).replace('%2B', '+') == f'configs/{path}'
        and entry.get('Weights')
    ]
    wanted = name.rpartition('::')[2].lower()
    return next((n for n in published if n.lower() == wanted), None) or next(
        iter(published), None
    )


@cache
def zoo_entries(package: str) -> list[dict]:
    """Read the metafiles of an installed package.

    Args:
        package (str): Its name.

    Returns:
        list[dict]: The models of all its metafiles; none where it has no metafiles.
    """
    root = _mim(package)
    if not (root / 'model-index.yml').is_file():
        return []
    return [
        entry
        for metafile in mmengine.load(str(root / 'model-index.yml'))['Import']
        for entry in mmengine.load(str(root / metafile)).get('Models', [])
    ]


@cache
def zoo_configs(package: str) -> dict[str, list[str]]:
    """List the names of a package's configs.

    Args:
        package (str): Its name.

    Returns:
        dict[str, list[str]]: Names in lower case (of its model zoo, of files without
        folder and ending, and of files with their folder) -> configs as
        ``'package::folder/config.py'``.
    """
    root = _mim(package) / 'configs'
    names: dict[str, list[str]] = {}

    def add(name: str, path: str) -> None:
        configs = names.setdefault(name.lower(), [])
        if f'{package}::{path}' not in configs:
            configs.append(f'{package}::{path}')

    by_file: dict[str, list[str]] = {}
    for file in sorted(root.rglob('*.py')):
        path = file.relative_to(root).as_posix()
        add(path, path)
        if not _HIDDEN & set(file.parts) and file.name != '__init__.py':
            by_file.setdefault(file.stem, []).append(path)
    for entry in zoo_entries(package):
        path = str(entry.get('Config')).replace('%2B', '+').partition('configs/')[2]
        if (root / path).is_file():
            add(entry['Name'], path)
    for stem, paths in by_file.items():
        # A name of the model zoo goes before files that share it.
        if stem.lower() not in names:
            for path in paths:
                add(stem, path)
    return names


def _inheritable(config: str) -> str:
    """A name that ``_base_`` takes, or the file where MMEngine takes none."""
    package, _, path = config.partition('::')
    # Folders such as `gn+ws` do not match what MMEngine looks for.
    if package != 'mmfakd' and re.match(r'\w+::\w+/\w', config):
        return config
    return str((_mim(package) / 'configs' / path).resolve())


def config_file(name: str) -> str:
    """Find the file of a config.

    Args:
        name (str): As for :func:`find_config`; configs of mmfakd have names, too, and
            go first.

    Returns:
        str: The path of the file.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ModuleNotFoundError: If the package of ``'package::...'`` is not installed.
        ValueError: If the name stands for several configs, which are listed.
    """
    own = f'mmfakd::{name}'
    if '::' not in name and name.lower().removesuffix('.py') in zoo_configs('mmfakd'):
        name = name if osp.isfile(name) else own
    package, _, path = find_config(name).rpartition('::')
    return str(_mim(package) / 'configs' / path) if package else path


def _mim(package: str) -> Path:
    """The folder of a package with its configs and metafiles."""
    if package == 'mmfakd':
        return config_folder().parent
    return Path(str(import_module(package).__file__)).parent / '.mim'


def _near(key: str, names: dict[str, list[str]]) -> list[str]:
    """Names that a user may have meant, the nearest first."""
    if '/' not in key:
        names = {name: configs for name, configs in names.items() if '/' not in name}
    begin = sorted((name for name in names if name.startswith(key)), key=len)
    close = get_close_matches(key, names, n=_NEAR)
    return list(dict.fromkeys([*begin[:_NEAR], *close]))[: 2 * _NEAR]


__all__ = ['ZOOS', 'find_config', 'find_weights', 'zoo_configs', 'zoo_entries']
