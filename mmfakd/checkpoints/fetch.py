# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints from files, addresses and model zoos."""

from __future__ import annotations

import logging
import os.path as osp
import re
from typing import Any

from mmengine.logging import print_log

from mmfakd.compat import load_checkpoint_file
from mmfakd.messages import near_names
from mmfakd.model_zoo.find import WEIGHT_ZOOS, zoo_weights
from mmfakd.model_zoo.published import published_entry
from mmfakd.model_zoo.resolve import package_config
from mmfakd.model_zoo.shipped import config_names

from .download import download as _download
from .download import file_hash, is_cached, promised_hash
from .schemes import load_from_store, published_file, published_weights, scheme_of


def fetch_checkpoint(source: str, **options: Any) -> dict:
    """Load a checkpoint, in general to the CPU, from wherever it is.

    MMEngine's own loaders lead here, too. However a file comes in,
    :func:`~mmfakd.compat.load_checkpoint_file` reads it, which runs nothing of it.

    Args:
        source (str): One of

            - the path of a local file;
            - an ``http(s)://`` address, downloaded once into
              ``$MMENGINE_HOME/checkpoints`` with a check of the hash in its name;
            - a model-zoo name, ``'resnet34_8xb32_in1k'`` or
              ``'mmpretrain::resnet/resnet34_8xb32_in1k.py'``;
            - a name of one of MMEngine's lists, ``torchvision://resnet18``,
              ``open-mmlab://``, ``mmcls://``, or an address of a store, ``s3://``,
              ``petrel://``, ``pavi://``.
        **options: As for :func:`~mmfakd.compat.load_checkpoint_file`.

    Returns:
        dict: The checkpoint as it was saved, without texts that could run.

    Raises:
        FileNotFoundError: If ``source`` is neither a file nor a known name.
        ModuleNotFoundError: If it names a package that is not installed.
        DownloadError: If a download fails or does not have the hash in its name.
        ValueError: If the scheme of an address is not known.
    """
    path = osp.expanduser(source)
    if osp.isfile(path):
        _warn_of_hash(path)
        return load_checkpoint_file(path, **options)
    if scheme_of(source) is None:
        # An address, or a file that comes with mmfakd.
        return fetch_checkpoint(_weights_of_name(source), **options)
    if source.startswith(('http://', 'https://')):
        return load_checkpoint_file(_download(source), **options)
    published = published_file(source)
    if published is None:
        return load_from_store(source, **options)
    return published_weights(source, fetch_checkpoint(published, **options))


def local_file(source: str) -> str | None:
    """Find the file that :func:`fetch_checkpoint` reads, and download it if need be.

    Args:
        source (str): As for :func:`fetch_checkpoint`.

    Returns:
        str | None: Its path on this machine; None for what an object store, or a loader
        of other code, hands out.

    Raises:
        FileNotFoundError: If ``source`` is neither a file nor a known name.
        ModuleNotFoundError: If it names a package that is not installed.
        DownloadError: If a download fails or does not have the hash in its name.
    """
    path = osp.expanduser(source)
    if osp.isfile(path):
        return path
    if scheme_of(source) is None:
        return local_file(_weights_of_name(source))
    if source.startswith(('http://', 'https://')):
        return _download(source)
    published = published_file(source)
    return None if published is None else local_file(published)


def is_known(source: str) -> bool:
    """Tell whether a source names something, as far as the network is not asked.

    Args:
        source (str): As for :func:`fetch_checkpoint`.

    Returns:
        bool: Whether it is a file, an address or a name in the model zoos.
    """
    if osp.isfile(osp.expanduser(source)) or scheme_of(source) is not None:
        return True
    try:
        _weights_of_name(source)
    except (FileNotFoundError, ModuleNotFoundError):
        return False
    return True


def is_at_hand(source: str) -> bool:
    """Tell whether weights need no download.

    Args:
        source (str): As for :func:`fetch_checkpoint`.

    Returns:
        bool: Whether they are on this machine, by an earlier download or otherwise.

    Raises:
        FileNotFoundError: If ``source`` is neither a file nor a known name.
        ModuleNotFoundError: If it names a package that is not installed.
    """
    if osp.isfile(osp.expanduser(source)):
        return True
    scheme = scheme_of(source)
    if scheme is None:
        return is_at_hand(_weights_of_name(source))
    url = source if scheme in ('http', 'https') else published_file(source)
    return url is not None and is_cached(url)


def _warn_of_hash(path: str) -> None:
    """Warn if the file does not have the hash that its name promises."""
    promised = promised_hash(path)
    if promised is not None and not (found := file_hash(path)).startswith(promised):
        print_log(
            f'{path}: its name promises the SHA-256 {promised}..., the file has '
            f'{found[:8]}.... It may have been changed since it was published.',
            logger='current',
            level=logging.WARNING,
        )


def _weights_of_name(name: str) -> str:
    """Look a model-zoo name up in the metafiles of the installed packages."""
    if '::' in name:
        try:
            return package_config(name, pretrained=True).model_path
        except (AssertionError, AttributeError, OSError, ValueError) as error:
            raise FileNotFoundError(
                f'{name!r}: no weights are published for that config ({error}).'
            ) from error
    if osp.isdir(name):
        raise FileNotFoundError(
            f'{name!r} is a folder. Expected a checkpoint file in it; where DeepSpeed '
            "or FSDP has written the folder, make one file of it with that library's "
            'own tool (zero_to_fp32.py, torch.distributed.checkpoint.format_utils).'
        )
    # A name has neither folder nor ending: do not read every metafile for a typo
    # in a path.
    is_path = re.search(r'[/\\]|\.(pth|pt|bin|ckpt|safetensors)$', name)
    known = {} if is_path else zoo_weights()
    if name.lower() in known:
        return known[name.lower()]
    if not is_path and name in config_names():
        # A config of mmfakd: this says why it has no weights.
        try:
            published_entry(name)
        except ValueError as error:
            raise FileNotFoundError(str(error)) from error
    near = near_names(name, known)
    raise FileNotFoundError(
        f'{name!r} is neither a file, nor an address, nor a name in the model zoos of '
        f'{", ".join(WEIGHT_ZOOS)}.'
        + (f' Near names: {", ".join(near)}.' if near else ' Check the path.')
    )
