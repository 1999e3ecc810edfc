# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names in a training's notes, by which a resumed one removes files and folders."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def drop_risky_names(info: dict[str, Any]) -> dict[str, Any]:
    """Take out of a training's notes what names files that no training has written.

    MMEngine's ``CheckpointHook`` removes the best checkpoint before, and those that
    are no longer kept, mmfakd's what a killed run had still to remove, files and
    folders alike. So a stranger's checkpoint would say what goes.

    Args:
        info (dict): The notes, ``runtime_info`` of a checkpoint's ``message_hub``.
            What is risky is taken out of it.

    Returns:
        dict[str, Any]: What has been taken out, by its key.
    """
    risky = {key: value for key, value in info.items() if _is_risky(key, value)}
    for key in risky:
        del info[key]
    return risky


def _is_risky(key: Any, value: Any) -> bool:
    if not isinstance(key, str) or value is None:
        return False
    if key == 'keep_ckpt_ids':
        # They are put into a template, such as 'epoch_{}.pth'.
        return not _are(value, lambda step: isinstance(step, int))
    if key == 'outdated_ckpts':
        return not _are(value, _is_plain_name)
    # Its folder may have been moved since, from another system, too.
    named = re.split(r'[/\\]', value)[-1] if isinstance(value, str) else ''
    return key.startswith('best_ckpt') and not named.startswith('best_')


def _are(values: Any, is_meant: Callable[[Any], bool]) -> bool:
    return isinstance(values, (list, tuple)) and all(map(is_meant, values))


def _is_plain_name(name: Any) -> bool:
    """Whether it names a file of whatever folder it is put behind."""
    plain = isinstance(name, str) and name not in ('', '.', '..')
    return plain and not {'/', '\\'} & set(name)
