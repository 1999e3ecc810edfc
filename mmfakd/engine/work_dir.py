# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One training at a time in a work dir, and earlier checkpoints out of its way."""

from __future__ import annotations

import errno
import logging
import os
import os.path as osp
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config
from mmengine.logging import print_log

from mmfakd.checkpoints.latest import checkpoint_files, checkpoint_folders

from .file_names import name_pattern
from .launchers import RANKS
from .safety import hook_configs

# Windows has no record locks of POSIX.
if sys.platform != 'win32':
    import fcntl

LOCK = 'training.lock'
# What a training writes, as against weights that somebody has put there.
_WRITTEN = r'(?:epoch|iter|best)_.*|interrupted\..*'


@contextmanager
def lock_folders(cfg: Config) -> Iterator[None]:
    """Lock the folders of a training: the work dir and where checkpoint hooks write.

    Nothing in them is to be read, written or moved before: another training may be
    at it. Only the first process locks.

    Args:
        cfg (Config): The whole config.

    Yields:
        None: While it holds the locks.

    Raises:
        OSError: If a folder cannot be written, or another training holds it.
    """
    # What goes wrong gives the locks back.
    with ExitStack() as locks:
        for folder in _local_folders(cfg) if is_first_process(cfg) else ():
            locks.enter_context(lock_work_dir(folder))
        yield


def clear_folders(cfg: Config) -> None:
    """Move what an earlier training left in the folders of one that is to begin.

    What is there stays where training goes on from it. Only the first process moves,
    and it holds the locks.

    Args:
        cfg (Config): The whole config; it says what the training goes on from.

    Raises:
        OSError: If the files cannot be moved.
        ValueError: If the training starts from a file that it would overwrite.
    """
    other = checkpoint_of_another(cfg)
    if not is_first_process(cfg) or (cfg.get('resume') and not other):
        return
    named, written = named_files(cfg), written_names(cfg)
    for folder in _local_folders(cfg):
        move_earlier(folder, named, other, written)


def _local_folders(cfg: Config) -> list[str]:
    return [folder for folder in training_folders(cfg) if '://' not in folder]


def check_work_dir(cfg: Config) -> None:
    """Make the work dir of a run that is no training, and see that it can be written.

    Args:
        cfg (Config): The whole config. Only the first process looks.

    Raises:
        OSError: If it cannot.
    """
    if is_first_process(cfg):
        try:
            os.makedirs(cfg.work_dir, exist_ok=True)
            tempfile.TemporaryFile(dir=cfg.work_dir).close()
        except OSError as error:
            _refuse(cfg.work_dir, error)


def training_folders(cfg: Config) -> list[str]:
    """List the folders that a training writes checkpoints to.

    Args:
        cfg (Config): Its config.

    Returns:
        list[str]: The work dir, and those of ``out_dir``; some may be addresses.
    """
    outs = [hook.get('out_dir') for hook in hook_configs(cfg)]
    return checkpoint_folders(cfg.work_dir, outs)


def checkpoint_of_another(cfg: Config) -> str | None:
    """Find the checkpoint of another training that one goes on from.

    Args:
        cfg (Config): The config of a training.

    Returns:
        str | None: ``load_from`` of a resumed training, if it lies in none of the
        folders that the training writes to. A folder within them is another one.
    """
    path = cfg.get('load_from') if cfg.get('resume') else None
    if not isinstance(path, str):
        return None
    file = osp.expanduser(path)
    # A link in the folder, and a link to what is in it, are both of this training.
    places = {osp.realpath(osp.dirname(file)), osp.dirname(osp.realpath(file))}
    own = {osp.realpath(folder) for folder in training_folders(cfg)}
    return None if places & own else path


def is_first_process(cfg: Config | Mapping[str, Any]) -> bool:
    """Tell whether this is the process that writes, before processes have met.

    Args:
        cfg (Config | Mapping[str, Any]): A config, or options of a command; their
            ``launcher`` counts.

    Returns:
        bool: Whether it is.
    """
    name = RANKS.get(cfg.get('launcher') or 'none')
    return name is None or os.environ.get(name, '0') == '0'


def lock_work_dir(folder: str | Path) -> AbstractContextManager:
    """Make a work dir and keep other trainings out of it.

    The lock is a record lock of POSIX on ``training.lock``: it ends with the process,
    however that ends, and data workers do not inherit it.

    Args:
        folder (str | Path): The work dir.

    Returns:
        AbstractContextManager: What holds the lock until it is left.

    Raises:
        BlockingIOError: If a training holds it.
        OSError: If the folder cannot be made or written.
    """
    path = osp.join(folder, LOCK)
    try:
        os.makedirs(folder, exist_ok=True)
        # For reading, too: who holds it stands in it.
        file = open(path, 'a+b', buffering=0, opener=_no_link)  # noqa: SIM115
    except OSError as error:
        _refuse(folder, error)
    holder = f'pid {os.getpid()} on {socket.gethostname()}'
    try:
        if sys.platform != 'win32':
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f'{holder}, since {time.strftime("%Y-%m-%d %H:%M:%S")}\n'.encode())
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            holder = file.read().decode(errors='replace').strip() or 'unknown process'
            file.close()
            raise BlockingIOError(
                f'{folder} is in use by another training: {holder}. Wait for it, end '
                'it, or give this one a folder of its own: --work-dir, whose last part '
                'is also the name of its folder in the `out_dir` of hooks.'
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            file.close()
            _refuse(folder, error)
        print_log(
            f'{path} cannot be locked ({error.strerror}): nothing keeps a second '
            'training out of this folder. Start only one.',
            logger='current',
            level=logging.WARNING,
        )
    return file


def _no_link(path: str, flags: int) -> int:
    """Open a file that is emptied, wherever a link would lead."""
    # Windows has no such flag.
    if osp.islink(path):
        raise OSError(errno.ELOOP, f'{path} is a link, which is not followed')
    return os.open(path, flags | getattr(os, 'O_NOFOLLOW', 0), 0o666)


@contextmanager
def explain_full_disk(folder: str | Path) -> Iterator[None]:
    """Say what to do when a log does not fit, which the system tells without a name.

    Args:
        folder (str | Path): The work dir.

    Yields:
        None: While it trains.

    Raises:
        OSError: In place of one for want of room that names nothing.
    """
    try:
        yield
    except OSError as error:
        # Checkpoints explain themselves.
        plain = error.strerror == os.strerror(error.errno or 0)
        if plain and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f'{error.strerror}: {error.filename or f"a log in {folder}"} could not '
                'be written. Checkpoints that were there before are untouched. Make '
                'room, then go on with --resume.',
            ) from error
        raise


def named_files(cfg: Config) -> dict[str, str]:
    """Find the weights that a config names, in whatever field.

    Args:
        cfg (Config): The whole config.

    Returns:
        dict[str, str]: Real path of each file that is there -> as it is named.
    """

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            for part in value.values():
                yield from texts(part)
        elif isinstance(value, (list, tuple)):
            for part in value:
                yield from texts(part)

    # A longer text is no path, and some systems would say so by an error.
    named = {text for text in texts(cfg._cfg_dict) if 0 < len(text) < 1024}
    files = {text for text in named if osp.isfile(osp.expanduser(text))}
    return {osp.realpath(osp.expanduser(text)): text for text in files}


def written_names(cfg: Config) -> str:
    """Describe the names of the files that a training writes weights to.

    Args:
        cfg (Config): Its config; ``filename_tmpl`` of any hook counts.

    Returns:
        str: A regular expression for such a name.
    """
    hooks = list(hook_configs(cfg))
    suffixes = ['_student', *(hook.get('suffix') for hook in hooks)]
    added = '|'.join(re.escape(s) for s in suffixes if isinstance(s, str))
    templates = [hook.get('filename_tmpl') for hook in hooks]
    names = [name_pattern(t, f'(?:{added})?') for t in templates if isinstance(t, str)]
    return '|'.join([_WRITTEN, *names])


def move_earlier(
    folder: str | Path,
    named: dict[str, str],
    source: str | None = None,
    written: str = _WRITTEN,
) -> Path | None:
    """Move the checkpoints of an earlier training into a folder of their own.

    The oldest goes first, each by one renaming: if this is interrupted, nothing is
    lost, and the newest is where ``--resume`` looks.

    Args:
        folder (str | Path): Where a training is about to write.
        named (dict[str, str]): Weights that it starts from, see :func:`named_files`.
            They stay where they are.
        source (str, optional): The checkpoint of another folder that it goes on from.
            Defaults to None: it starts anew.
        written (str): What it writes, see :func:`written_names`. Defaults to the usual
            names.

    Returns:
        Path | None: The new folder, if there was something to move.

    Raises:
        OSError: If the files cannot be moved.
        ValueError: If one of the named files would be overwritten.
    """
    folder = Path(folder)
    files = checkpoint_files([folder])
    files.sort(key=lambda file: file.stat().st_mtime)
    used = [file for file in files if osp.realpath(file) in named]
    for file in used:
        if re.fullmatch(written, file.name):
            raise ValueError(
                f'The config names {named[osp.realpath(file)]}, and the training would '
                f'write its own checkpoints into that folder, {folder}, under such '
                'names. Give it another one (--work-dir), or --resume to go on.'
            )
    files = [file for file in files if file not in used]
    if not files:
        return None
    target = _new_folder(folder)
    begins = 'starts anew' if source is None else f'goes on from {source}'
    print_log(
        f'{folder} holds {len(files)} checkpoints of an earlier training. This one '
        f'{begins}; they are moved to {target}. To go on from one of them instead, '
        'give its path as --resume.',
        logger='current',
        level=logging.WARNING,
    )
    try:
        target.mkdir()
        for file in [*files, folder / 'last_checkpoint']:
            if osp.lexists(file):
                file.rename(target / file.name)
    except OSError as error:
        _refuse(folder, error)
    return target


def _new_folder(folder: Path) -> Path:
    stem = folder / f'earlier_{time.strftime("%Y%m%d_%H%M%S")}'
    names = (stem if n == 0 else Path(f'{stem}_{n}') for n in count())
    return next(name for name in names if not name.exists())


def _refuse(folder: str | Path, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        reason = 'it, or a folder above it, is a file'
    # Not as errno and text, which would be printed as `[Errno 28] ...`.
    raise OSError(
        f'The work dir {folder} cannot be written: {reason}. Give a folder that can '
        '(--work-dir), or another `out_dir` of the hook if it is that of one, or make '
        'room or change its rights.'
    ) from error
