# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Downloads of weights, each once, into a folder that many processes share."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import os.path as osp
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

from mmengine.logging import print_log
from mmengine.runner.checkpoint import _get_mmengine_home
from torch.hub import get_dir, tqdm

from mmfakd.compat import load_checkpoint_file

from .atomic import PART, is_open_file
from .download_error import DownloadError

# As in `resnet18_8xb32_in1k_20210831-fbbb1da6.pth`; a date is none.
_HASH_IN_NAME = re.compile(
    r'-(?!20\d{6}\.)([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)$'
)
# Seconds that a server may be silent, and between tries.
TIMEOUT = 30
PAUSES: tuple[int, ...] = (1, 3, 9)
# A server that is busy, or refuses to go on in the middle of the file.
_PASSING = (408, 416, 425, 429, 500, 502, 503, 504)
_DAY = 24 * 60 * 60


def promised_hash(name: str) -> str | None:
    """Read the beginning of a SHA-256 off the name of a file of published weights.

    Args:
        name (str): Name, path or address.

    Returns:
        str | None: Eight hexadecimal digits or more, None if there are none.
    """
    match = _HASH_IN_NAME.search(name)
    return match and match.group(1)


def file_hash(path: str) -> str:
    """Compute the SHA-256 of a file.

    Args:
        path (str): The file.

    Returns:
        str: It in hexadecimal digits.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def cache_path(url: str) -> str:
    """Tell where the download of an address is kept.

    Args:
        url (str): The address.

    Returns:
        str: A path in ``$MMENGINE_HOME/checkpoints`` whose name begins with a digest of
        the whole address, so that no two addresses share a file.
    """
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return osp.join(_folder(), f'{digest}_{_name(url)}')


def is_cached(url: str) -> bool:
    """Tell whether the file of an address has been downloaded before.

    Args:
        url (str): ``http://...`` or ``https://...``, or a path.

    Returns:
        bool: Whether a file is there; :func:`download` looks what is in it.
    """
    return any(map(osp.isfile, (url, cache_path(url), *_former_paths(url))))


@contextmanager
def one_try() -> Iterator[None]:
    """Let downloads fail at once, without pauses and further tries."""
    global PAUSES
    kept, PAUSES = PAUSES, ()
    try:
        yield
    finally:
        PAUSES = kept


def download(url: str) -> str:
    """Download weights, unless they have been before.

    A cached file that does not have the hash in its name, or is truncated, is loaded
    anew. Several processes may ask at once: one downloads, the others wait for it.

    Args:
        url (str): ``http://...`` or ``https://...``.

    Returns:
        str: Path of the file.

    Raises:
        DownloadError: If the download fails, is no checkpoint, or does not have the
            hash in its name.
    """
    path = cache_path(url)
    cached = next((p for p in (path, *_former_paths(url)) if _flaw(p) is None), None)
    if cached is not None:
        print_log(f'{url} was downloaded before: {cached}', logger='current')
        return cached
    try:
        os.makedirs(_folder(), exist_ok=True)
        _remove_old_parts()
        with _locked(f'{path}{PART}') as file:
            flaw = _flaw(path)
            if flaw is not None:
                if osp.isfile(path):
                    _warn(f'{flaw} It is downloaded anew.')
                print_log(f'Downloading {url} to {path}', logger='current')
                _transfer(url, file)
                _check(file.name)
                os.replace(file.name, path)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        raise DownloadError(
            f'{url} could not be downloaded: {error}. Download it elsewhere and '
            f'give the path of the file, or put it at {path}.'
        ) from error
    return path


def _folder() -> str:
    return osp.join(_get_mmengine_home(), 'checkpoints')


def _name(url: str) -> str:
    name = osp.basename(unquote(urlparse(url).path))
    return re.sub(r'[^\w.+-]', '_', name)[-100:]


def _former_paths(url: str) -> list[str]:
    """Where older versions, and torch, keep a file whose name promises a hash."""
    if promised_hash(_name(url)) is None:
        return []
    folders = (_folder(), osp.join(get_dir(), 'checkpoints'))
    return [osp.join(folder, _name(url)) for folder in folders]


def _flaw(path: str) -> str | None:
    """What is wrong with a file of the cache, if anything is."""
    if not osp.isfile(path):
        return f'{path} is not there.'
    status = os.stat(path)
    try:
        _check_once(path, status.st_mtime_ns, status.st_size)
    except (RuntimeError, ValueError) as error:
        return f'{path}: {error}'
    return None


# What is resumed is asked for several times, and may be large.
@lru_cache(maxsize=4)
def _check_once(path: str, changed: int, size: int) -> None:
    _check(path)


def _check(path: str) -> None:
    """Check that a file is the one that its name promises, and whole."""
    promised = promised_hash(path.removesuffix(PART))
    if promised is not None:
        found = file_hash(path)
        if not found.startswith(promised):
            raise ValueError(
                f'invalid hash value (its name promises the SHA-256 {promised}..., it '
                f'has {found[: len(promised)]}...).'
            )
    else:
        # What is refused is whole.
        with suppress(UnpicklingError, TypeError):
            load_checkpoint_file(path, mmap=True)


def _transfer(url: str, file: BinaryIO) -> None:
    """Receive a file, in several tries if need be."""
    # What the server calls the version that the beginning of the file is of.
    version: dict[str, str] = {}
    for pause in (*PAUSES, None):
        try:
            _receive(url, file, version)
            file.flush()
            os.fsync(file.fileno())
            return
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError):
                version.clear()
                if error.code not in _PASSING:
                    raise
            if pause is None:
                raise
            _warn(f'{url}: {error}. Trying again in {pause} s.')
            time.sleep(pause)


def _receive(url: str, file: BinaryIO, version: dict[str, str]) -> None:
    """Receive a file, or what is missing of it since the last try."""
    headers = {'User-Agent': 'mmfakd', **version}
    if version:
        headers['Range'] = f'bytes={file.tell()}-'
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
        begin = response.headers.get('Content-Range', '').partition('-')[0]
        if response.status != 206 or begin != f'bytes {file.tell()}':
            file.seek(0)
            file.truncate()
        version.clear()
        tag = response.headers.get('ETag', 'W/')
        if not tag.startswith('W/'):
            version['If-Range'] = tag
        length, start = response.headers.get('Content-Length'), file.tell()
        total = None if length is None else start + int(length)
        with tqdm(
            total=total,
            initial=start,
            unit='B',
            unit_scale=True,
            unit_divisor=1024,
            disable=not sys.stderr.isatty(),
        ) as bar:
            for block in iter(lambda: response.read(1 << 16), b''):
                file.write(block)
                bar.update(len(block))
    if total not in (None, file.tell()):
        raise ConnectionError(f'truncated, {file.tell():,} of {total:,} bytes came')


@contextmanager
def _locked(path: str) -> Iterator[BinaryIO]:
    """Open a file that no other process has; it is removed unless it was renamed."""
    while True:
        with open(path, 'ab') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print_log(
                    f'Waiting for another process that writes {path}', logger='current'
                )
                fcntl.flock(file, fcntl.LOCK_EX)
            # The one before may have renamed or removed it.
            if not is_open_file(path, file):
                continue
            try:
                yield file
            finally:
                if is_open_file(path, file):
                    os.remove(path)
            return


def _remove_old_parts() -> None:
    """Remove what processes that were killed have left."""
    for part in Path(_folder()).glob(f'*{PART}'):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _DAY:
                part.unlink()


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
