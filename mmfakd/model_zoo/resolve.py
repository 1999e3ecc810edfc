# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Model configs from `cfg_path`, with overrides that take effect."""

from __future__ import annotations

import copy
import os.path as osp
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from mmfakd.compat.config_literals import leaves_package
from mmfakd.messages import quoted

from .find import near_configs, package_folder
from .plain_files import reads_plain_files_only
from .read_config import read_config
from .type_names import type_name

# Modules that a config imports for its teacher alone.
TEACHER_IMPORTS = 'teacher_imports'


def resolve_model_cfg(
    cfg: dict, data_preprocessor: dict | None = None, files: bool = True
) -> tuple[ConfigDict, str | None]:
    """Resolve a model config to one that builds on its own.

    ``cfg_path`` entries are replaced by the model of that config, into which the
    remaining keys are merged (MMEngine's hub ignores them silently), and a data
    preprocessor that stands at the top level of a config moves into the model: of
    mmrazor's ``sub_model``, a pruned one, into its ``cfg``.

    Args:
        cfg (dict): A model config; or ``dict(cfg_path='mmpretrain::...')`` with
            overrides beside it; ``cfg_path`` may also be the path of a file, and
            ``pretrained=True`` asks for the weights that the metafiles of the package
            list.
        data_preprocessor (dict, optional): The data preprocessor from the top level
            of the config around. It yields to one within ``cfg`` and goes before
            that of the ``cfg_path`` config.
        files (bool): Whether ``cfg_path`` may name a file, which is run. Not where the
            config is a text in somebody's checkpoint, nor within ``plain_files_only``.
            Defaults to True.

    Returns:
        tuple[ConfigDict, str | None]: The config to build, and the address of the
        pretrained weights when they were asked for.

    Raises:
        FileNotFoundError: If ``cfg_path`` names no config.
        ModuleNotFoundError: If its package is not installed.
        TypeError: If ``cfg_path`` is no text.
        ValueError: If a ``type`` stands beside ``cfg_path``, or the config there has
            no model, or no weights where they are asked for, or for a file that may
            not be run.
    """
    resolved = ConfigDict(copy.deepcopy(cfg))
    weights = None
    if 'cfg_path' in resolved:
        path = resolved.pop('cfg_path')
        if not isinstance(path, str):
            raise TypeError(
                f'cfg_path={path!r}: expected the path of a config file or '
                "'package::folder/config.py'."
            )
        if 'type' in resolved:
            raise ValueError(
                f'type={resolved.type!r} stands beside cfg_path={path!r}, which brings '
                'a model of its own: leave out one of them. Where `cfg_path` is to '
                'replace a model that a base config gives, add `_delete_=True`.'
            )
        if is_file(path) and (not files or reads_plain_files_only()):
            raise ValueError(
                f'cfg_path={path!r} is a file, which would be run, and a text in a '
                'checkpoint or a log does not decide that. If you trust it, give the '
                'config.'
            )
        pretrained = resolved.pop('pretrained', False)
        base = load_model_config(path, pretrained)
        if 'model' not in base:
            raise ValueError(f'cfg_path={path!r}: that config has no `model`.')
        weights = base.get('model_path')
        model = copy.deepcopy(base.model)
        if data_preprocessor is not None:
            model.pop('data_preprocessor', None)
        elif 'data_preprocessor' in base:
            model.setdefault('data_preprocessor', base.data_preprocessor)
        # Parts of a package's configs, such as its `_base_/models`, name no scope.
        package = path.split('::')[0] if '::' in path else None
        scope = base.get('default_scope', package)
        if scope is not None:
            model.setdefault('_scope_', scope)
        model.merge(resolved)
        resolved = model
    if _is_sub_model(resolved):
        # It throws away what it has no argument for.
        beside = resolved.pop('data_preprocessor', None)
        resolved.cfg, inner = resolve_model_cfg(
            resolved.cfg, data_preprocessor if beside is None else beside, files
        )
        weights = weights or inner
    elif data_preprocessor is not None and resolved.get('data_preprocessor') is None:
        resolved.data_preprocessor = ConfigDict(copy.deepcopy(data_preprocessor))
    return resolved, weights


def _is_sub_model(model: Any) -> bool:
    """Tell whether a config is that of mmrazor's function around a model's config."""
    return type_name(model) == 'sub_model' and isinstance(model.get('cfg'), dict)


def innermost(model: Any) -> Any:
    """Find the config that mmrazor's ``sub_model`` builds.

    Args:
        model (Any): A model's config.

    Returns:
        Any: That within it; of another model it itself.
    """
    while isinstance(model, dict) and _is_sub_model(model):
        model = model['cfg']
    return model


def is_file(path: str) -> bool:
    """Tell whether a ``cfg_path`` is no config of an installed package.

    Args:
        path (str): It.

    Returns:
        bool: Whether it names a file.
    """
    return '::' not in path or leaves_package(path)


def model_files(model: Any) -> list[str]:
    """List the config files that a model's config names.

    Args:
        model (Any): The config, or a part of it.

    Returns:
        list[str]: Their paths.
    """
    parts = list(model.values()) if isinstance(model, dict) else model
    if not isinstance(parts, (list, tuple)):
        return []
    path = model.get('cfg_path') if isinstance(model, dict) else None
    found = [path] if isinstance(path, str) and is_file(path) else []
    return found + [file for part in parts for file in model_files(part)]


def imported(custom_imports: Any) -> list[str]:
    """List the modules that a config imports.

    Args:
        custom_imports (dict, optional): Its ``custom_imports``.

    Returns:
        list[str]: Their names.
    """
    names = (custom_imports or {}).get('imports') or []
    return [names] if isinstance(names, str) else list(names)


def load_model_config(path: str, pretrained: bool) -> Config:
    """Read the config that a ``cfg_path`` names.

    Args:
        path (str): It.
        pretrained (bool): Whether the weights of its metafile are needed.

    Returns:
        Config: The config, with ``model_path`` where there are weights.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ValueError: If it names no package or there are no weights.
    """
    if '::' in path:
        try:
            cfg = package_config(path, pretrained)
        except (AssertionError, ValueError) as error:
            raise ValueError(f'cfg_path={path!r}: {error}.{_near(path)}') from error
        except FileNotFoundError as error:
            message = f'cfg_path={path!r}: {error}.{_near(path)}'
            raise FileNotFoundError(message) from error
    elif osp.isfile(path):
        cfg = read_config(path)
    else:
        raise FileNotFoundError(
            f'cfg_path={path!r} is no file; give a config file or '
            "'package::folder/config.py', for example "
            f"'mmpretrain::resnet/resnet34_8xb32_in1k.py'.{_near(path)}"
        )
    if pretrained and 'model_path' not in cfg:
        why = 'has no weights in the metafiles of its package'
        if '::' not in path:
            why = "is a file, and weights are looked up for 'package::' names alone"
        raise ValueError(
            f'cfg_path={path!r} {why}, but pretrained=True asks for weights. Give them '
            'with `teacher_ckpt` or `student_ckpt` instead.'
        )
    return cfg


def _near(path: str) -> str:
    near = near_configs(path)
    return f' Near names: {quoted(near)}.' if near else ''


def package_config(path: str, pretrained: bool = False) -> Config:
    """Read a config of an installed package.

    Args:
        path (str): ``'package::folder/config.py'``.
        pretrained (bool): Whether ``model_path`` of the result is to be the address
            of the weights in the package's metafiles.

    Returns:
        Config: The config.

    Raises:
        ModuleNotFoundError: If the package is not installed. MMEngine's hub would
            install it by itself, into whatever ``python`` comes first on the path.
        ValueError: If the path leaves the package's folder.
    """
    if leaves_package(path):
        raise ValueError(f'{path!r} leaves the folder of the package')
    package_folder(path.partition('::')[0])
    return get_config(path, pretrained=pretrained)
