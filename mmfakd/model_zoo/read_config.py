# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs as they are read from files, which are programs that may fail."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from .config_sources import find_circle

if TYPE_CHECKING:
    from mmengine.config import Config


def read_config(file: str) -> Config:
    """Read a config, and name it in whatever goes wrong with it.

    Args:
        file (str): Path of the config.

    Returns:
        Config: The config.

    Raises:
        ImportError: If it imports what is not there.
        ValueError: If it inherits itself, or cannot be read otherwise; the error's name
            and place are told. Or if its model is of a kind that is no config.
    """
    # Listing configs needs no mmengine.
    from mmengine.config import Config

    if circle := find_circle(file):
        raise ValueError(
            f'The config {file} inherits itself: {" -> ".join(circle)}. Name another '
            'file in `_base_`.'
        )
    try:
        config = Config.fromfile(file)
    except ImportError:
        # It says what is to be installed.
        raise
    except Exception as error:
        raise ValueError(
            f'The config {file} cannot be read: {type(error).__name__}: {error}'
            f'{_place(error)}'
        ) from error
    model = config.get('model')
    if not isinstance(model, (dict, type(None))):
        raise ValueError(f'The config {file} has model = {model!r}; expected a dict.')
    return config


def _place(error: Exception) -> str:
    """Where in a config it happened, as it may inherit from others."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.name == '<module>' and f.filename.endswith('.py')]
    return f' ({own[-1].filename}, line {own[-1].lineno})' if own else ''
