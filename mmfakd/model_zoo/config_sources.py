# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The files that a config is made of."""

from __future__ import annotations

import ast
import os.path as osp
from collections.abc import Iterator
from pathlib import Path


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


def find_circle(config: str) -> list[str]:
    """Find out whether a config inherits itself, which MMEngine reads without end.

    Args:
        config (str): Path of a config file.

    Returns:
        list[str]: The files that lead from one back to it, which stands at both ends;
        none if there is no circle.
    """
    done: set[str] = set()

    def follow(file: str, chain: list[str]) -> list[str]:
        file = osp.abspath(file)
        if file in chain:
            return [*chain[chain.index(file) :], file]
        if file in done or not osp.isfile(file):
            return []
        done.add(file)
        try:
            bases = list(_bases(file))
        except Exception:
            # Who reads the config says what is wrong with it.
            return []
        found = (follow(base, [*chain, file]) for base in bases)
        return next(filter(None, found), [])

    return follow(config, [])


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
