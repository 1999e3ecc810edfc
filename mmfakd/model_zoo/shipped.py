# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The configs that come with mmfakd, for the command line."""

from __future__ import annotations

import os.path as osp
from fnmatch import fnmatch
from pathlib import Path

from mmfakd.messages import near_names

_PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """Find the folder of the configs that come with mmfakd.

    Returns:
        Path: In an installed package ``.mim/configs``, in a checkout ``configs``.
    """
    installed = _PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else _PACKAGE.parent / 'configs'


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
    found = [name for name in names if fnmatch(name, pattern)]
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
    # Listing needs no torch.
    from mmengine.config import Config

    from .find import config_file

    return Config.fromfile(config_file(config)).pretty_text.rstrip()


def copy_config(config: str, out: str | None = None, force: bool = False) -> str:
    """Write a config with all that it inherits into one file.

    Args:
        config (str): Path of a config, or its name.
        out (str, optional): The file. Defaults to None, its name in this folder.
        force (bool): Whether to overwrite a file.

    Returns:
        str: What was done.

    Raises:
        FileExistsError: If the file exists.
    """
    name = osp.splitext(osp.basename(config))[0]
    out = out or f'{name}.py'
    if osp.exists(out) and not force:
        raise FileExistsError(f'{out} exists; choose another name, or give --force.')
    text = show_config(config)
    with open(out, 'w') as file:
        file.write(f'# {name} of mmfakd, with all that it inherits.\n{text}\n')
    return f'Written: {out}. To train it: mmfakd train {out}'
