# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The configs that come with mmfakd, for the command line."""

from __future__ import annotations

import fnmatch
import shlex
from pathlib import Path

from mmfakd.messages import near_names

from .config_sources import config_sources
from .find import config_file, package_folder
from .outputs import (
    check_config_name,
    check_outputs,
    explain_unwritten,
)
from .read_config import read_config


def config_folder() -> Path:
    """Find the folder of the configs that come with mmfakd.

    Returns:
        Path: In an installed package ``.mim/configs``, in a checkout ``configs``.
    """
    return package_folder('mmfakd') / 'configs'


def config_names() -> list[str]:
    """Name the configs that come with mmfakd.

    Returns:
        list[str]: The files' names without folder and ending, which are unique.
    """
    return sorted(file.stem for file in (config_folder() / 'fakd').rglob('*.py'))


def list_configs(pattern: str = '*') -> str:
    """List names of configs.

    Args:
        pattern (str): Which of them, as in a shell.

    Returns:
        str: A line for each.

    Raises:
        ValueError: If none fits.
    """
    names = config_names()
    found = fnmatch.filter(names, pattern)
    if not found:
        near = near_names(pattern.strip('*'), names)
        raise ValueError(
            f'no config of mmfakd fits {pattern!r}.'
            + (f' Near names: {", ".join(near)}.' if near else '')
            + " All of them: mmfakd configs list. Patterns are as in '*r56*'."
        )
    return '\n'.join(found)


def show_config(config: str) -> str:
    """Write a config with all that it inherits.

    Args:
        config (str): Path of a config, or its name.

    Returns:
        str: The text.
    """
    return read_config(config_file(config)).pretty_text.rstrip()


def copy_config(config: str, out: str | None = None, force: bool = False) -> str:
    """Write a config with all that it inherits into one file.

    Args:
        config (str): Path of a config, or its name.
        out (str, optional): The file. Defaults to None, its name in this folder.
        force (bool): Whether to overwrite a file.

    Returns:
        str: What was done.

    Raises:
        FileExistsError: If the file exists, or the config is made of it.
        OSError: If it cannot be written.
        ValueError: If its name is that of no config.
    """
    file = config_file(config)
    name = Path(file).stem
    path = Path(out or f'{name}.py')
    check_config_name(str(path))
    check_outputs(force, [str(path)], config_sources(file))
    text = f'# {name}, with all that it inherits.\n{show_config(config)}\n'
    with explain_unwritten(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    return f'Written: {path}. To train it: mmfakd train {shlex.quote(str(path))}'
