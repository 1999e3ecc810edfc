# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that a command writes: none that it reads, and none that is there."""

from __future__ import annotations

import ast
import os.path as osp
from collections.abc import Iterable, Iterator
from pathlib import Path


def check_outputs(
    force: bool, outs: Iterable[str | None], sources: Iterable[str | None] = ()
) -> None:
    """Refuse to overwrite files.

    Args:
        force (bool): Whether files may be overwritten that are there.
        outs (Iterable[str, optional]): The files to write.
        sources (Iterable[str, optional]): What the command reads, which is never
            overwritten. Addresses and names of model zoos are no files.

    Raises:
        FileExistsError: If one exists that must not be overwritten.
    """
    read = {osp.realpath(osp.expanduser(source)) for source in sources if source}
    for path in filter(None, outs):
        if osp.realpath(path) in read:
            raise FileExistsError(
                f'{path} is a file that this command reads, and would be lost; choose '
                'another name. --force does not overwrite it.'
            )
        if osp.exists(path) and not force:
            raise FileExistsError(
                f'{path} exists; choose another name, or give --force.'
            )


def check_config_name(path: str | None) -> None:
    """Refuse a name under which nothing would read a config.

    Args:
        path (str, optional): The config to write.

    Raises:
        ValueError: If it does not end in ``.py``.
    """
    if path and not path.endswith('.py'):
        raise ValueError(f'{path}: a config is a Python file; name it {path}.py.')


def config_sources(config: str) -> list[str]:
    """List the files that a config is made of.

    Args:
        config (str): Path of a config file.

    Returns:
        list[str]: It, and what it inherits, by ``_base_`` or by ``read_base``. Of a
        config that cannot be read, as far as it can.
    """
    found: list[str] = []
    waiting = [config]
    while waiting:
        file = waiting.pop()
        if file not in found and osp.isfile(file):
            found.append(file)
            # Who reads the config says what is wrong with it.
            try:
                waiting += _bases(file)
            except Exception:
                continue
    return found


def _bases(file: str) -> Iterator[str]:
    from mmengine.config import Config

    if not file.endswith('.py') or not Config._is_lazy_import(file):
        for base in Config._get_base_files(file):
            yield Config._get_cfg_path(base, file)[0]
        return
    for name in Config._get_base_modules(ast.parse(Path(file).read_text()).body):
        level = len(name) - len(name.lstrip('.'))
        # Those of packages are nobody's to overwrite.
        if level:
            path = f'{name[level:].replace(".", "/")}.py'
            yield osp.join(osp.dirname(file), *['..'] * (level - 1), path)
