# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's addresses other than http: model zoos and object stores."""

from __future__ import annotations

import os.path as osp
import re
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.fileio import get_local_path
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    _get_mmengine_home,
    _process_mmcls_checkpoint,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from mmfakd.compat import load_checkpoint_file
from mmfakd.messages import near_names

from .mmengine_loader import load_from_mmfakd

_LISTS = ('torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls')
_STORES = ('pavi', 's3', 'petrel')
_ADDRESS = re.compile(r'(?:\S+:)?(\w[\w+-]*)://(.*)')


def scheme_of(source: str) -> str | None:
    """Tell the scheme of an address.

    Args:
        source (str): Address, path or name.

    Returns:
        str | None: What stands before ``://``; None for paths and names.
    """
    match = _ADDRESS.match(source)
    return match and match.group(1)


def published_file(source: str) -> str | None:
    """Find the file that a name of MMEngine's own lists stands for.

    Args:
        source (str): ``torchvision://resnet18`` and so on.

    Returns:
        str | None: An address of http or a path; None for other schemes.

    Raises:
        FileNotFoundError: If the list has no such name; near names are listed.
    """
    scheme, _, name = source.partition('://')
    if scheme in ('torchvision', 'modelzoo'):
        return _look_up(source, name, get_torchvision_models())
    if scheme == 'mmcls':
        return _look_up(source, name, get_mmcls_models())
    if scheme in ('open-mmlab', 'openmmlab'):
        name = get_deprecated_model_names().get(name, name)
        place = _look_up(source, name, get_external_models())
        return place if '://' in place else osp.join(_get_mmengine_home(), place)
    return None


def load_from_store(source: str, **options: Any) -> dict:
    """Load a checkpoint from an object store, or by a loader of somebody else.

    Args:
        source (str): An address of ``pavi://``, ``s3://``, ``petrel://``, or of a
            scheme that other code has registered with MMEngine's ``CheckpointLoader``.
        **options: As for :func:`~mmfakd.compat.load_checkpoint_file`.

    Returns:
        dict: The checkpoint.

    Raises:
        ModuleNotFoundError: If the client of the store is not installed.
        ValueError: If nobody knows the scheme.
    """
    scheme = scheme_of(source)
    if scheme == 'pavi':
        from pavi import modelcloud

        with TemporaryDirectory() as folder:
            model = modelcloud.get(source.partition('://')[2])
            path = osp.join(folder, 'model.pth')
            model.download(path)
            return load_checkpoint_file(path, **options)
    if scheme in _STORES:
        with get_local_path(source, backend_args=dict(backend='petrel')) as path:
            return load_checkpoint_file(path, **options)
    loader = CheckpointLoader._get_checkpoint_loader(source)
    if loader.__module__ != load_from_mmfakd.__module__:
        return loader(source, options.get('map_location'))
    known = ('http', 'https', *_LISTS, *_STORES)
    raise ValueError(
        f'{source!r}: addresses of {scheme}:// are not known. Expected one of '
        f'{", ".join(f"{name}://" for name in known)}, a path, or a model-zoo name.'
    )


def published_weights(source: str, checkpoint: dict) -> dict:
    """Take what MMEngine takes out of a file of one of its lists.

    Args:
        source (str): The address that was given.
        checkpoint (dict): What the file holds.

    Returns:
        dict: Of ``mmcls://`` the backbone, without its prefix; else all.
    """
    is_mmcls = source.startswith('mmcls://')
    return _process_mmcls_checkpoint(checkpoint) if is_mmcls else checkpoint


def _look_up(source: str, name: str, known: Mapping[str, str]) -> str:
    if name in known:
        return known[name]
    near = near_names(name, known)
    raise FileNotFoundError(
        f'{source!r}: there is no {name!r} in that list of MMEngine.'
        + (f' Near names: {", ".join(near)}.' if near else '')
    )
