# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a resumed training takes from its checkpoint before anything is built."""

from __future__ import annotations

import os.path as osp
import warnings

from mmengine.config import Config, ConfigDict

from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.latest import (
    check_resumable,
    checkpoint_folders,
    find_checkpoint,
)
from mmfakd.compat import load_checkpoint_file

from .safety import hook_configs


def prepare_resume(cfg: Config) -> None:
    """Check the checkpoint that training goes on from, and take its random seed.

    MMEngine takes the seed only after the data loaders are built. ``ResumeHook`` finds
    the checkpoint again where none is named, and says what was skipped.

    Args:
        cfg (Config): The config of a training, changed in place: without a checkpoint
            to go on from it is no longer a resumed one.

    Raises:
        FileNotFoundError: If a named checkpoint is not there.
        ValueError: If training cannot go on from it.
    """
    if not cfg.get('resume'):
        return
    path = cfg.get('load_from')
    if path is None:
        outs = [hook.get('out_dir') for hook in hook_configs(cfg)]
        folders = checkpoint_folders(cfg.work_dir, outs)
        if any('://' in folder for folder in folders):
            return
        path, skipped = find_checkpoint(*folders)
        if path is None:
            cfg.resume = False
            reasons = ''.join(f'\n- skipped: {reason}' for reason in skipped)
            warnings.warn(
                f'--resume: {cfg.work_dir} has no checkpoint to go on from. Training '
                f'starts from the beginning.{reasons}',
                stacklevel=2,
            )
            return
        meta = load_checkpoint_file(path, mmap=True)['meta']
    else:
        if osp.exists(path):
            check_resumable(path)
        meta = fetch_checkpoint(path).get('meta', {})
    seed = meta.get('seed')
    given = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and seed != given:
        cfg.randomness = ConfigDict(cfg.get('randomness') or {}, seed=seed)
        if given is not None:
            warnings.warn(
                f'The seed {given} gives way to {seed}, with which the training that '
                'goes on began: data are drawn in its order.',
                stacklevel=2,
            )
