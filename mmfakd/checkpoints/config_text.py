# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs as they stand in checkpoints, read without running them."""

from __future__ import annotations

from mmengine.config import Config

from mmfakd.compat.config_literals import config_literals


def read_config_text(text: str) -> Config:
    """Read the text of a config, which is never executed.

    Args:
        text (str): Assignments of literals and ``dict(...)`` calls, as
            ``Config.pretty_text`` writes them.

    Returns:
        Config: What they say.

    Raises:
        ValueError: If there is anything else in it; the line is named.
    """
    try:
        return Config(config_literals(text))
    except KeyError as error:
        # Names that belong to Config itself.
        raise ValueError(f'This is no text of a config: {error.args[0]}.') from error
