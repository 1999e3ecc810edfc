# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The index of a package's models is read once, not once more for every name."""

from __future__ import annotations

import functools
import os
from typing import Any

# The files of four packages.
_KEPT = 512


def remember_model_index() -> None:
    """Keep what MMEngine reads to find the config that ``'package::...'`` names.

    MMEngine reads ``model-index.yml`` of the package and all the 90 metafiles that it
    lists, which takes a fifth of a second, for each config, base and model that is
    named. A file that has changed since is read again.

    This is for all versions of MMEngine 0.10 of either family.
    """
    from mmengine.config import utils

    original = utils.load
    if hasattr(original, 'mmfakd'):
        return

    @functools.lru_cache(_KEPT)
    def read(file: str, changed: int, size: int) -> Any:
        return original(file)

    @functools.wraps(original)
    def load(file: str) -> Any:
        state = os.stat(file)
        return read(file, state.st_mtime_ns, state.st_size)

    load.mmfakd = True  # type: ignore[attr-defined]
    utils.load = load
