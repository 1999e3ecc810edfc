# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A resumed training removes no best checkpoint of another folder."""

from __future__ import annotations

import os.path as osp
from functools import wraps
from typing import Any


def leave_best_of_others() -> None:
    """Let ``CheckpointHook`` replace the best checkpoint of its own folder alone.

    MMEngine's hook removes what a checkpoint that is resumed notes as the best one,
    wherever it lies: in the folder of an earlier training, which goes on to a new one,
    or where a stranger's file says. Calling this again changes nothing.
    """
    from mmengine.hooks.checkpoint_hook import CheckpointHook

    original = CheckpointHook.before_train
    if hasattr(original, 'mmfakd'):
        return

    @wraps(original)
    def before_train(self: Any, runner: Any) -> None:
        original(self, runner)
        if not is_in(getattr(self, 'best_ckpt_path', None), self.out_dir):
            self.best_ckpt_path = None
        paths = getattr(self, 'best_ckpt_path_dict', {})
        for key in [k for k, path in paths.items() if not is_in(path, self.out_dir)]:
            paths[key] = None

    before_train.mmfakd = True  # type: ignore[attr-defined]
    CheckpointHook.before_train = before_train


def is_in(path: Any, folder: Any) -> bool:
    """Tell whether a file lies in a folder, not in one of its folders.

    Args:
        path (str, optional): Its path; None lies everywhere.
        folder (str | os.PathLike): The folder.

    Returns:
        bool: Whether it does, by names without links where both are local.
    """
    if path is None:
        return True
    parts = [str(folder), osp.dirname(str(path))]
    if not any('://' in part for part in parts):
        parts = list(map(osp.realpath, parts))
    return parts[0].rstrip('/') == parts[1]
