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
    or where a stranger's file says. Nor does it publish that, or stumble where there
    is none to publish. Calling this again changes nothing.
    """
    from mmengine.hooks.checkpoint_hook import CheckpointHook

    original, publish = CheckpointHook.before_train, CheckpointHook._publish_model
    if hasattr(original, 'mmfakd'):
        return

    @wraps(original)
    def before_train(self: Any, runner: Any) -> None:
        original(self, runner)
        if not is_own(getattr(self, 'best_ckpt_path', None), self):
            self.best_ckpt_path = None
        paths = getattr(self, 'best_ckpt_path_dict', {})
        for key in [k for k, path in paths.items() if not is_own(path, self)]:
            paths[key] = None

    @wraps(publish)
    def publish_model(self: Any, runner: Any, ckpt_path: str | None) -> None:
        # Of several scores one may have no best checkpoint here.
        if ckpt_path is not None:
            publish(self, runner, ckpt_path)

    before_train.mmfakd = True  # type: ignore[attr-defined]
    CheckpointHook.before_train = before_train
    CheckpointHook._publish_model = publish_model


def is_own(path: Any, hook: Any) -> bool:
    """Tell whether a checkpoint lies in the folder of a hook, not in one in it.

    Args:
        path (str, optional): Its path; None lies everywhere.
        hook (CheckpointHook): The hook, whose training has begun.

    Returns:
        bool: Whether it does, by the name that the hook would give, or where both are
        local by names without links.
    """
    if path is None:
        return True
    # Backends may map folders: './work_dirs' to 's3://bucket'.
    own = str(hook.file_backend.join_path(hook.out_dir, osp.basename(str(path))))
    folders = [osp.dirname(name) for name in (own, str(path))]
    if not any('://' in folder for folder in folders):
        folders = list(map(osp.realpath, folders))
    return folders[0] == folders[1]
