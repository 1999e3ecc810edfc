# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs in pure Python, which inherit by ``read_base`` and name classes."""

from __future__ import annotations

import os.path as osp
import re

from mmengine.config import Config

# What joins that of the student, in place of a dict that MMEngine merges.
_JOINED = re.compile(r'^(default_hooks|optim_wrapper) = dict\($', re.MULTILINE)


def is_new_style(config: str) -> bool:
    """Tell whether a config is one in pure Python.

    Args:
        config (str): What :func:`~mmfakd.model_zoo.find.find_config` returned.

    Returns:
        bool: Whether it is. Such a config can be no ``_base_``.
    """
    return '::' not in config and Config._is_lazy_import(config)


def as_new_style(text: str, student: str, folder: str) -> str:
    """Turn a written config into one that inherits a config in pure Python.

    Args:
        text (str): The config with a ``_base_``.
        student (str): The student's config.
        folder (str): Where the config will stand.

    Returns:
        str: The same in pure Python. Types of ours stay names.

    Raises:
        ValueError: If the student cannot be imported from there, or data sets are to
            be wrapped.
    """
    if '_base_.train_dataloader' in text:
        raise ValueError(
            'this method wraps the training data, which is not written for a student '
            'in pure Python; choose another method'
        )
    known = Config.fromfile(student)
    header, _, rest = re.split(r'(^_base_ = .*$)', text, flags=re.MULTILINE)
    base = [
        'from mmengine.config import read_base',
        '',
        'with read_base():',
        f'    from {_module(student, folder)} import *',
    ]
    rest = rest.replace('    _delete_=True,\n', '', 1).replace(
        '{{_base_.model}}', 'model'
    )

    def join(match: re.Match) -> str:
        name = match[1]
        return f'{name}.update(' if name in known else match[0]

    return header + '\n'.join(base) + _JOINED.sub(join, rest)


def leads_to(path: str, relative: str, folder: str) -> bool:
    """Tell whether a relative path is the same for the system, which follows links.

    Args:
        path (str): The file.
        relative (str): Its path from the folder, by their names.
        folder (str): The folder.

    Returns:
        bool: Whether the system finds the file there.
    """
    return osp.realpath(osp.join(folder, relative)) == osp.realpath(path)


def _module(path: str, folder: str) -> str:
    """The relative import of a config."""
    name = osp.splitext(osp.relpath(osp.abspath(path), folder))[0]
    parts = name.replace('\\', '/').split('/')
    ups = parts.count('..')
    names = parts[ups:]
    if not leads_to(path, osp.relpath(osp.abspath(path), folder), folder):
        raise ValueError(
            f'{path} is a config in pure Python and cannot be imported from {folder}, '
            f'which is a link; write into {osp.realpath(folder)}'
        )
    if not all(part.isidentifier() for part in names):
        raise ValueError(
            f'{path} is a config in pure Python and cannot be imported as '
            f'{".".join(names)}: give it, and folders on the way, names that are '
            'identifiers'
        )
    return '.' * (ups + 1) + '.'.join(names)
