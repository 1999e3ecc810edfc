# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmfakd's configs in the configs and the hub of others.

MMEngine writes ``_scope_='package'`` into what is inherited by ``'package::...'``.
That suits a package whose configs name nothing but its own parts. mmfakd's configs
are made of mmpretrain's and mmdet's, so theirs is the scope that is written: each
config says which in its ``default_scope``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from mmfakd.messages import near_names, quoted

from .find import config_file, entries_of, package_folder, shipped_path

_PACKAGE = 'mmfakd'
_PREFIX = f'{_PACKAGE}::'
# What `read_base` imports: `from mmfakd.configs.fakd.digits.name import *`.
_MODULES = f'{_PACKAGE}.configs.'
# Arguments of data loaders that MMEngine looks up without a scope: `_scope_` would
# reach the function.
_FUNCTIONS = ('collate_fn', 'worker_init_fn')


def let_configs_inherit() -> None:
    """Make mmfakd's configs bases, by ``_base_`` and by ``read_base``.

    ``_base_ = 'mmfakd::fakd/digits/name.py'`` is found in an installed package and in
    a checkout. ``from mmfakd.configs.fakd.digits.name import *`` in ``read_base`` of a
    pure Python config works although mmfakd's are text configs, with ``_`` for each
    ``-`` of a name. Calling it again changes nothing.
    """
    from mmengine.config import config as module

    config: Any = module.Config
    if hasattr(config._get_cfg_path, _PACKAGE):
        return
    for name, change in (
        ('_get_cfg_path', _finding_ours),
        ('_dict_to_config_dict', _in_scope_of_config),
        ('_get_base_modules', _spelled_as_files),
        ('_parse_lazy_import', _reading_text),
    ):
        changed = change(getattr(config, name))
        setattr(changed, _PACKAGE, True)
        setattr(config, name, staticmethod(changed))
    installed_path = module.get_installed_path

    def configs_path(package: str) -> str:
        ours = package == _PACKAGE
        return str(package_folder(package)) if ours else installed_path(package)

    # Where `read_base` looks for modules; the only other use is the path above.
    module.get_installed_path = configs_path  # type: ignore[assignment]


def let_hub_build() -> None:
    """Make ``mmengine.hub.get_config`` and ``get_model`` take ``'mmfakd::...'``.

    The model of the config gets its ``default_scope`` as ``_scope_``, as the hub
    builds in the scope of the package. Calling it again changes nothing.
    """
    from mmengine import hub
    from mmengine.hub import hub as module

    if not hasattr(module.get_config, _PACKAGE):
        changed = _getting_ours(module.get_config)
        setattr(changed, _PACKAGE, True)
        module.get_config = hub.get_config = changed


def own_config(path: str) -> str:
    """Find the file of a config of mmfakd.

    Args:
        path (str): ``'mmfakd::folder/name.py'``, or ``'mmfakd::name'``.

    Returns:
        str: The path of the file.

    Raises:
        FileNotFoundError: If there is none; near names are listed.
    """
    folder = package_folder(_PACKAGE) / 'configs'
    if not folder.is_dir():
        raise FileNotFoundError(
            f'{path!r}: the folder {folder} with the configs of mmfakd does not exist; '
            'it is part of an installed mmfakd and of a checkout. Install one of them: '
            '`pip install .` or `pip install -e .` in the checkout.'
        )
    file = folder / path.removeprefix(_PREFIX)
    return str(file) if file.is_file() else config_file(path)


def _finding_ours(get_cfg_path: Callable) -> Callable:
    @wraps(get_cfg_path)
    def find(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith(_PREFIX):
            return own_config(cfg_path), _PREFIX
        return get_cfg_path(cfg_path, filename)

    return find


def _in_scope_of_config(to_config_dict: Callable) -> Callable:
    @wraps(to_config_dict)
    def convert(cfg: Any, scope: str | None = None, has_scope: bool = True) -> Any:
        if scope != _PREFIX:
            return to_config_dict(cfg, scope, has_scope)
        # Parts, such as those of `_base_`, name none: theirs is the user's.
        converted = to_config_dict(cfg, cfg.get('default_scope'), has_scope)
        for value in converted.values():
            for name in _FUNCTIONS if isinstance(value, Mapping) else ():
                if isinstance(value.get(name), dict):
                    value[name].pop('_scope_', None)
        return converted

    return convert


def _spelled_as_files(get_base_modules: Callable) -> Callable:
    @wraps(get_base_modules)
    def spell(nodes: list) -> list:
        for block in nodes:
            for node in block.body if isinstance(block, ast.With) else ():
                if isinstance(node, ast.ImportFrom) and not node.level:
                    node.module = _module_of_file(str(node.module))
        return get_base_modules(nodes)

    return spell


def _module_of_file(name: str) -> str:
    """The name of a module as its file has it, where Python does not spell that."""
    if not name.startswith(_MODULES):
        return name
    root = package_folder(_PACKAGE)
    files = (root / 'configs').rglob('*.py')
    paths = ['.'.join(file.relative_to(root).with_suffix('').parts) for file in files]
    modules = {f'{_PACKAGE}.{path}'.replace('-', '_'): path for path in paths}
    if name not in modules:
        raise FileNotFoundError(
            f'`from {name} import ...`: mmfakd has no such config. Near names: '
            f'{quoted(near_names(name, modules))}; a "-" of a file is written "_".'
        )
    return f'{_PACKAGE}.{modules[name]}'


def _reading_text(parse_lazy_import: Callable) -> Callable:
    @wraps(parse_lazy_import)
    def parse(filename: str) -> tuple[Any, set]:
        from mmengine.config import Config

        ours = package_folder(_PACKAGE) / 'configs' in Path(filename).parents
        if not ours or Config._is_lazy_import(filename):
            return parse_lazy_import(filename)
        content, _, _ = Config._file2dict(filename)
        return Config._dict_to_config_dict(content, _PREFIX), set()

    return parse


def _getting_ours(get_config: Callable) -> Callable:
    @wraps(get_config)
    def get(cfg_path: str, pretrained: bool = False) -> Any:
        from mmengine.config import Config

        if not cfg_path.startswith(_PREFIX):
            return get_config(cfg_path, pretrained)
        file = own_config(cfg_path)
        config = Config.fromfile(file)
        scope, model = config.get('default_scope'), config.get('model')
        if scope and isinstance(model, Mapping) and 'type' in model:
            model.setdefault('_scope_', scope)  # type: ignore[attr-defined]
        if pretrained:
            config.model_path = _weights(cfg_path, file)
        return config

    return get


def _weights(cfg_path: str, file: str) -> str:
    """The address, or path, of the published weights of a config."""
    entries = entries_of(_PACKAGE, shipped_path(file))
    weights = next((entry['Weights'] for entry in entries if entry['Weights']), None)
    if weights is None:
        raise ValueError(
            f'{cfg_path!r} has no weights in the metafiles of mmfakd, but '
            'pretrained=True asks for weights. Leave it out, train the config '
            f'(`mmfakd train {Path(file).stem}`), and load the file that this writes '
            'with `mmengine.runner.load_checkpoint(model, file)`.'
        )
    return weights
