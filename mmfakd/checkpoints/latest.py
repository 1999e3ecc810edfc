# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The newest checkpoint of a work dir from which training can go on."""

from __future__ import annotations

import os.path as osp
import shlex
import time
import zipfile
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

from mmfakd.compat import load_checkpoint_file
from mmfakd.compat.checkpoints import is_torch_file

# How files of checkpoints end; some have no ending.
ENDINGS = ('.pth', '.pt', '.ckpt')
# What a file that is no checkpoint, or no longer one, may raise.
LOAD_ERRORS = (OSError, RuntimeError, TypeError, UnpicklingError, ValueError)
# What a training goes on with beside weights, and what that is.
_STATES = dict(optimizer='of the optimizer', param_schedulers='of the schedule')


class Found(NamedTuple):
    """A checkpoint, and what was passed over on the way to it.

    Args:
        path (str, optional): Its path; None if there is none.
        skipped (list[str]): File and reason, for each that was passed over.
    """

    path: str | None
    skipped: list[str]


def find_checkpoint(*folders: str | Path) -> Found:
    """Find the newest checkpoint that is complete and undamaged.

    The time and iteration that stand in the files decide, not their names, nor
    ``last_checkpoint``, which may be empty, missing, or point to where the folder was
    before. Student files are passed over, and best checkpoints, which have no state of
    the optimizer.

    Args:
        *folders (str | Path): Where to look; folders within them are not searched.

    Returns:
        Found: The checkpoint, if there is one.
    """
    ranked: list[tuple[tuple[bool, float, int], Path]] = []
    skipped: list[str] = []
    for path in checkpoint_files(folders):
        try:
            checkpoint = load_checkpoint_file(path, mmap=True)
        except LOAD_ERRORS as error:
            skipped.append(str(error))
            continue
        is_best = path.name.startswith('best_') and 'optimizer' not in checkpoint
        if _what_it_is(checkpoint) is None and not is_best:
            ranked.append((_rank(checkpoint), path))
    for _, path in sorted(ranked, reverse=True):
        damage = find_damage(path)
        if damage is None:
            return Found(str(path), skipped)
        skipped.append(damage)
    return Found(None, skipped)


def is_newer(path: str | Path, checkpoint: Mapping) -> bool:
    """Tell whether a file is newer than a checkpoint, by what stands in both.

    Args:
        path (str | Path): The file, from which training can go on.
        checkpoint (Mapping): What has been read of the other one.

    Returns:
        bool: Whether it was saved later.
    """
    return _rank(load_checkpoint_file(path, mmap=True)) > _rank(checkpoint)


def saved_at(checkpoint: Mapping) -> float:
    """Read when a checkpoint was saved.

    Args:
        checkpoint (Mapping): What has been read.

    Returns:
        float: The time in seconds, as it stands in the position of mmfakd or in the
        ``meta`` of MMEngine; 0 where neither has one.
    """
    saved = (checkpoint.get('position') or {}).get('time')
    if saved is None:
        told = str((checkpoint.get('meta') or {}).get('time'))
        try:
            saved = time.mktime(time.strptime(told, '%Y%m%d_%H%M%S'))
        except ValueError:
            saved = 0.0
    return float(saved)


def checkpoint_folders(
    work_dir: str, out_dirs: Iterable[str | Path | None]
) -> list[str]:
    """List the folders that a training writes checkpoints to.

    Args:
        work_dir (str): Its work dir.
        out_dirs (Iterable[str | Path | None]): ``out_dir`` of its checkpoint hooks,
            which put a folder with the name of the work dir there.

    Returns:
        list[str]: The folders, each once.
    """
    # As MMEngine makes it, also of `.`.
    name = osp.basename(osp.abspath(work_dir))
    others = (osp.join(str(out), name) for out in out_dirs if out not in (None, ''))
    return list(dict.fromkeys([work_dir, *others]))


def checkpoint_files(folders: Iterable[str | Path]) -> list[Path]:
    """List what may be a checkpoint, without reading it.

    Args:
        folders (Iterable[str | Path]): Folders, which need not exist.

    Returns:
        list[Path]: Files that end as checkpoints do, or have no ending and begin as
        files of ``torch.save``. Hidden ones are none.
    """

    def may_be(file: Path) -> bool:
        if file.name.startswith('.') or not file.is_file():
            return False
        return is_torch_file(file) if not file.suffix else file.suffix in ENDINGS

    files = (file for folder in folders for file in sorted(Path(folder).glob('*')))
    return list(filter(may_be, files))


def check_resumable(
    path: str | Path,
    needed: Collection[str] = ('optimizer',),
    source: str | None = None,
) -> dict[str, Any]:
    """Check that training can go on from a file, before anything is built.

    Args:
        path (str | Path): The file.
        needed (Collection[str]): What it has to hold beside weights, see
            :func:`needed_states`.
        source (str, optional): How the user names it, an address for example. Defaults
            to None: by its path.

    Returns:
        dict[str, Any]: What it holds; tensors are read when they are first used.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds weights alone, as student files do, or
            lacks what is needed.
    """
    checkpoint = load_checkpoint_file(path, mmap=True)
    check_content(path if source is None else source, checkpoint, needed)
    damage = find_damage(path)
    if damage is None:
        return checkpoint
    if source in (None, str(path)):
        raise ValueError(f'--resume: {damage} Give --resume alone for the newest good.')
    raise ValueError(
        f'--resume {source}: {damage} Remove that file, so that it comes anew, or give '
        '--resume alone for the newest good.'
    )


def check_content(
    source: str | Path, checkpoint: Mapping, needed: Collection[str]
) -> None:
    """Check that training can go on from what has been read.

    Args:
        source (str | Path): How the user names it.
        checkpoint (Mapping): What has been read.
        needed (Collection[str]): What it has to hold beside weights, see
            :func:`needed_states`.

    Raises:
        ValueError: If it holds weights alone, or lacks what is needed.
    """
    what = _what_it_is(checkpoint)
    if what is not None:
        raise ValueError(
            f'--resume {source}: it is {what}, from which training cannot go on as it '
            'was. Give a checkpoint such as epoch_12.pth, or --resume alone for the '
            'newest. To begin a new training with these weights, give --student-ckpt.'
        )
    if find_lack(checkpoint, needed):
        raise lack_error(source, checkpoint, needed)


def needed_states(schedulers: Any) -> tuple[str, ...]:
    """List what a training takes from a checkpoint to go on, beside weights.

    Args:
        schedulers (Any): ``param_scheduler`` of its config or ``param_schedulers`` of
            its runner: one or several, those of several optimizers, or none.

    Returns:
        tuple[str, ...]: Keys of the checkpoint.
    """
    lists = schedulers.values() if isinstance(schedulers, Mapping) else [schedulers]
    return tuple(_STATES) if any(lists) else ('optimizer',)


def find_lack(checkpoint: Mapping, needed: Collection[str]) -> str | None:
    """Tell which states a checkpoint lacks, without which they would start anew.

    Args:
        checkpoint (Mapping): What has been read.
        needed (Collection[str]): What :func:`needed_states` lists.

    Returns:
        str | None: What it lacks, in words; None if nothing.
    """
    missing = [key for key in needed if key not in checkpoint]
    told = checkpoint['meta'].get('mmfakd', {}).get('schedulers')
    if told is not None and not any(told.values()):
        # Of a training without a schedule, which LearningRateHook says.
        missing = [key for key in missing if key != 'param_schedulers']
    listed = ' and '.join(f'{_STATES[key]} (`{key}`)' for key in missing)
    return f'the state {listed}' if listed else None


def lack_error(
    path: str | Path, checkpoint: Mapping, needed: Collection[str]
) -> ValueError:
    """Say what to do about a checkpoint that :func:`find_lack` finds a lack in.

    Args:
        path (str | Path): Where it was read from.
        checkpoint (Mapping): What has been read.
        needed (Collection[str]): What :func:`needed_states` lists.

    Returns:
        ValueError: The error to raise. It names the checkpoint beside it to resume.
    """
    # Beside an address, or a name of a model zoo, nothing lies.
    near = _nearest(path, checkpoint, needed) if osp.isfile(path) else None
    other = f'Give --resume {shlex.quote(str(near))}, which lacks nothing. '
    return ValueError(
        f'--resume: {path} lacks {find_lack(checkpoint, needed)}, as best checkpoints '
        'do, and those of `save_optimizer=False` or `save_param_scheduler=False`. '
        'Optimizer and schedule would start anew, at the learning rate of the first '
        f'step. {other if near else ""}'
        'A new training from these weights is begun with --student-ckpt or '
        '--cfg-options load_from=...; --allow-changes resumes all the same.'
    )


def find_flaw(path: str | Path) -> str | None:
    """Tell what is wrong with a file that should be a checkpoint.

    Args:
        path (str | Path): The file.

    Returns:
        str | None: Why it cannot be read, None if it can.
    """
    try:
        load_checkpoint_file(path, mmap=True)
    except LOAD_ERRORS as error:
        return str(error)
    return find_damage(path)


def find_damage(path: str | Path) -> str | None:
    """Compare a file with the checksums in it.

    ``torch.save`` stores the CRC-32 of every tensor. Its older format, before torch
    1.6, has none.

    Args:
        path (str | Path): A file that can be opened as a checkpoint.

    Returns:
        str | None: What is wrong, if anything is.
    """
    if not zipfile.is_zipfile(path):
        return None
    status = Path(path).stat()
    damaged = _damaged_part(path, status.st_mtime_ns, status.st_size)
    if damaged is None:
        return None
    return f'Checkpoint "{path}" is damaged: a checksum in it does not fit ({damaged}).'


# The launcher and ResumeHook look at the same file, which may be large.
@lru_cache(maxsize=4)
def _damaged_part(path: str | Path, changed: int, size: int) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        return str(error)


def _what_it_is(checkpoint: Mapping) -> str | None:
    """What a file is that training cannot go on from."""
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping) or 'state_dict' not in checkpoint:
        return 'a file of plain weights'
    if 'message_hub' not in checkpoint or not {'epoch', 'iter'} <= meta.keys():
        return 'a student file or published weights'
    return None


def _nearest(
    path: str | Path, checkpoint: Mapping, needed: Collection[str]
) -> str | None:
    """The checkpoint beside a file that lacks nothing, nearest in iterations."""
    found = []
    for file in checkpoint_files([Path(path).parent]):
        try:
            other = load_checkpoint_file(file, mmap=True)
        except LOAD_ERRORS:
            continue
        if _what_it_is(other) is None and other.keys() >= set(needed):
            steps = int(other['meta']['iter']) - int(checkpoint['meta']['iter'])
            found.append((abs(steps), str(file)))
    return min(found)[1] if found else None


def _rank(checkpoint: Mapping) -> tuple[bool, float, int]:
    saved, iteration = saved_at(checkpoint), int(checkpoint['meta']['iter'])
    return 'optimizer' in checkpoint, saved, iteration
