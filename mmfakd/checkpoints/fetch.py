# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints from files, addresses and model zoos."""

from __future__ import annotations

import hashlib
import logging
import os
import os.path as osp
import re

from mmengine.dist import barrier, get_local_rank
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader, _get_mmengine_home
from torch.hub import download_url_to_file

from mmfakd.compat import load_checkpoint_file
from mmfakd.messages import near_names
from mmfakd.model_zoo.find import WEIGHT_ZOOS, zoo_weights
from mmfakd.model_zoo.resolve import package_config

# As in `resnet18_8xb32_in1k_20210831-fbbb1da6.pth`; a date is none.
_HASH_IN_NAME = re.compile(r'-(?!20\d{6}\.)([0-9a-f]{8,64})\.pth$')


def fetch_checkpoint(source: str) -> dict:
    """Load a checkpoint to the CPU from wherever it is.

    Args:
        source (str): One of

            - the path of a local file;
            - an ``http(s)://`` address, downloaded once into
              ``$MMENGINE_HOME/checkpoints`` with a check of the hash in its name;
            - a model-zoo name, ``'resnet34_8xb32_in1k'`` or
              ``'mmpretrain::resnet/resnet34_8xb32_in1k.py'``;
            - any other scheme of MMEngine's ``CheckpointLoader``
              (``torchvision://``, ``open-mmlab://``, ``s3://`` ...).

    Returns:
        dict: The checkpoint as it was saved.

    Raises:
        FileNotFoundError: If ``source`` is neither a file nor a known name.
        ModuleNotFoundError: If it names a package that is not installed.
        RuntimeError: If a download fails or does not have the hash in its name.
    """
    path = osp.expanduser(source)
    if osp.isfile(path):
        _warn_of_hash(path)
        return load_checkpoint_file(path)
    if not re.match(r'^(\S+:)?\w[\w+-]*://', source):
        source = _weights_of_name(source)
    if source.startswith(('http://', 'https://')):
        return load_checkpoint_file(_download(source))
    return CheckpointLoader.load_checkpoint(source, map_location='cpu')


def _warn_of_hash(path: str) -> None:
    """Warn if the file does not have the hash that its name promises."""
    match = _HASH_IN_NAME.search(path)
    if match is None:
        return
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    if not digest.hexdigest().startswith(match.group(1)):
        print_log(
            f'{path}: its name promises the SHA-256 {match.group(1)}..., the file '
            f'has {digest.hexdigest()[:8]}.... It may have been changed since it was '
            'published.',
            logger='current',
            level=logging.WARNING,
        )


def _download(url: str) -> str:
    folder = osp.join(_get_mmengine_home(), 'checkpoints')
    path = osp.join(folder, osp.basename(url.split('?')[0]))
    if osp.isfile(path):
        print_log(f'{url} was downloaded before: {path}', logger='current')
        _warn_of_hash(path)
    elif get_local_rank() == 0:
        os.makedirs(folder, exist_ok=True)
        match = _HASH_IN_NAME.search(path)
        print_log(f'Downloading {url} to {path}', logger='current')
        try:
            # It writes to a temporary file first: a wrong hash leaves nothing.
            download_url_to_file(url, path, hash_prefix=match and match.group(1))
            # It takes a connection that breaks off for the end of the file.
            load_checkpoint_file(path)
        except (OSError, RuntimeError, ValueError) as error:
            if osp.isfile(path):
                os.remove(path)
            raise RuntimeError(
                f'{url} could not be downloaded: {error}. Download it elsewhere and '
                f'give the path of the file, or put it at {path}.'
            ) from error
    barrier()
    return path


def _weights_of_name(name: str) -> str:
    """Look a model-zoo name up in the metafiles of the installed packages."""
    if '::' in name:
        try:
            return package_config(name, pretrained=True).model_path
        except (AssertionError, AttributeError, OSError, ValueError) as error:
            raise FileNotFoundError(
                f'{name!r}: no weights are published for that config ({error}).'
            ) from error
    # A name has neither folder nor ending: do not read every metafile for a typo
    # in a path.
    is_path = re.search(r'[/\\]|\.pth$|\.pt$', name)
    known = {} if is_path else zoo_weights()
    if name.lower() in known:
        return known[name.lower()]
    near = near_names(name, known)
    raise FileNotFoundError(
        f'{name!r} is neither a file, nor an address, nor a name in the model zoos of '
        f'{", ".join(WEIGHT_ZOOS)}.'
        + (f' Near names: {", ".join(near)}.' if near else ' Check the path.')
    )
