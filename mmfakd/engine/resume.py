# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a resumed training takes from its checkpoint before anything is built."""

from __future__ import annotations

import os.path as osp
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmfakd.checkpoints.atomic import whole_file
from mmfakd.checkpoints.fetch import fetch_checkpoint, local_file
from mmfakd.checkpoints.latest import (
    check_content,
    check_resumable,
    find_checkpoint,
    is_newer,
    needed_states,
)
from mmfakd.compat import load_checkpoint_file
from mmfakd.messages import printable

from .processes import may_be_restarted
from .safety import hook_configs
from .work_dir import is_first_process, training_folders

# What a training was started from by name; its time is that of the start.
_START = 'resumed_from.txt'


def prepare_resume(cfg: Config, teacher_given: bool = False) -> None:
    """Check the checkpoint that training goes on from; take its seed and its teacher.

    MMEngine takes the seed only after the data loaders are built. ``ResumeHook`` finds
    the checkpoint again where none is named, and says what was skipped. A process that
    was started once more goes on from the newest checkpoint of its work dir where that
    was saved since a user started it from the named one. The first process holds the
    locks of the folders by then: it reads them, and notes what it was started from.

    Args:
        cfg (Config): The config of a training, changed in place: without a checkpoint
            to go on from it is no longer a resumed one. With ``resume='auto'`` its
            ``load_from`` is what training starts from where there is none; with
            ``resume=True`` it names the checkpoint, as in MMEngine.
        teacher_given (bool): Whether the command line says which teacher it is to be.
            Otherwise it is that of the first run, whose command line may have said so.

    Raises:
        FileNotFoundError: If a named checkpoint is not there.
        OSError: If what it was started from cannot be noted.
        ValueError: If training cannot go on from it.
    """
    if not cfg.get('resume'):
        return
    path, start = cfg.get('load_from'), None
    if cfg.resume == 'auto':
        cfg.resume, cfg.load_from = True, None
        path, start = None, path
    if path is not None:
        # What looks for the file, and a note of it, are to mean one and the same.
        path = cfg.load_from = osp.expanduser(path)
    folders = training_folders(cfg)
    # On several machines one that joins late must not note a new start.
    again = may_be_restarted() and path is not None and _is_noted(path, cfg.work_dir)
    if again:
        path = cfg.load_from = _newest(path, folders, cfg)
    if path is None:
        if any('://' in folder for folder in folders):
            # MMEngine takes the one that this file names.
            if osp.exists(osp.join(cfg.work_dir, 'last_checkpoint')):
                return
            skipped: list[str] = []
        else:
            path, skipped = find_checkpoint(*folders)
        if path is None:
            _begin(cfg, start, skipped)
            return
        meta = load_checkpoint_file(path, mmap=True)['meta']
    else:
        meta = _read_named(path, cfg)['meta']
        # Not of a file that is refused: the job of the note before may come back.
        if not again and is_first_process(cfg):
            _note_start(path, cfg.work_dir)
    if not teacher_given:
        _keep_teacher(cfg, meta)
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


def _note_start(path: str, work_dir: str) -> None:
    """Note when a user started from a checkpoint, perhaps to go back to it."""
    with whole_file(osp.join(work_dir, _START)) as part:
        Path(part).write_text(_whole_name(path), encoding='utf-8')


def _saved_since_start(found: str, work_dir: str) -> bool:
    started = osp.getmtime(osp.join(work_dir, _START))
    return osp.getmtime(found) >= started


def _is_noted(path: str, work_dir: str) -> bool:
    try:
        return Path(work_dir, _START).read_text(encoding='utf-8') == _whole_name(path)
    except (OSError, UnicodeError):
        return False


def _whole_name(path: str) -> str:
    return path if '://' in path else osp.abspath(path)


def _read_named(path: str, cfg: Config) -> Mapping:
    """Read a named checkpoint, and check it as far as the config asks for."""
    allowed = any(hook.get('allow_changes') for hook in hook_configs(cfg))
    needed = () if allowed else needed_states(cfg.get('param_scheduler'))
    file = local_file(path)
    if file is not None:
        return check_resumable(file, needed, path)
    checkpoint = fetch_checkpoint(path)
    check_content(path, checkpoint, needed)
    return checkpoint


def _newest(path: str, folders: Sequence[str], cfg: Config) -> str:
    """Take what was saved since a job was first started from a path, if there is."""
    if any('://' in folder for folder in folders):
        return path
    found = find_checkpoint(*folders).path
    if found is None or not _saved_since_start(found, cfg.work_dir):
        return path
    why = 'is newer'
    try:
        if not is_newer(found, _read_named(path, cfg)):
            return path
    except FileNotFoundError:
        # `max_keep_ckpts` may have removed it.
        why = f'is there, and {path} is not'
    warnings.warn(
        f'--resume {path}: this process was started once more, and goes on from '
        f'{found}, which {why}. To go back to an earlier checkpoint, give another '
        '--work-dir.',
        stacklevel=4,
    )
    return found


def _begin(cfg: Config, start: str | None, skipped: Sequence[str]) -> None:
    """Make a training that has nothing to go on from one that begins."""
    cfg.resume, cfg.load_from = False, start
    reasons = ''.join(f'\n- skipped: {reason}' for reason in skipped)
    if lost := _lost(cfg.work_dir):
        reasons += (
            f'\n- last_checkpoint names {lost}, which is not there. If it lies '
            'elsewhere, as on a disk that is not mounted, end this training and give '
            '--resume PATH, or bring it back.'
        )
    weights = f', from the weights of load_from={start!r}' if start else ''
    warnings.warn(
        f'--resume: {cfg.work_dir} has no checkpoint to go on from. Training starts '
        f'from the beginning{weights}.{reasons}',
        stacklevel=3,
    )


def _lost(work_dir: str) -> str:
    """What ``last_checkpoint`` names although it is gone; '' without."""
    try:
        with open(osp.join(work_dir, 'last_checkpoint'), errors='replace') as file:
            named = printable(file.read(4096).strip())
    except OSError:
        return ''
    return '' if osp.exists(named) else named


def _keep_teacher(cfg: Config, meta: dict) -> None:
    """Take the teacher of the first run where the config names other weights."""
    model = cfg.get('model', {})
    given = model.get('teacher_ckpt')
    told = meta.get('mmfakd', {}).get('teacher', {})
    source, path = told.get('source'), told.get('path')
    if not source or given == source:
        return
    # Without weights in the config, those of a model zoo for example, it was an option.
    if not given and (path is None or not isinstance(model.get('teacher'), dict)):
        return
    if path is not None and osp.abspath(osp.expanduser(source)) != path:
        # Named from another folder, or moved.
        source = path
    if path is not None and not osp.isfile(osp.expanduser(source)):
        # ProvenanceHook compares the config's with it.
        return
    cfg.model.teacher_ckpt = source
    if given:
        warnings.warn(
            f'The teacher is the one that training began with, {source}, not '
            f'{given} of the config. Another one is given as --teacher-ckpt.',
            stacklevel=3,
        )
