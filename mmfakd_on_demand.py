# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Imports mmfakd when a config, or MMEngine's hub, asks for ``mmfakd::``.

Scripts of mmpretrain, mmdet and mmrazor do not import mmfakd, and `custom_imports` of a
config comes after what it inherits. So every interpreter of an environment with mmfakd
runs this module, for which ``mmfakd_on_demand.pth`` lies beside it. It imports nothing:
it waits for MMEngine, and there for the name of mmfakd. Where that does not come up,
MMEngine is as it was. mmrazor cannot be imported on torch 2 without mmfakd's shims, so
they come with it (https://github.com/open-mmlab/mmrazor/issues/632).
"""

import sys
from contextlib import suppress
from importlib.machinery import PathFinder


class _Watcher:
    """A finder of modules that puts a door before those that ask for configs."""

    def find_spec(self, name, path=None, target=None):
        """Finds MMEngine's modules as Python does; see importlib."""
        if 'mmfakd' in sys.modules:
            return None
        if name == 'mmrazor':
            # What is wrong with mmfakd is none of mmrazor's business.
            with suppress(Exception):
                import mmfakd  # noqa: F401
            # The finders that mmfakd has brought stand before this one.
            others = [finder for finder in sys.meta_path if finder is not self]
            found = (finder.find_spec(name, path, target) for finder in others)
            return next(filter(None, found), None)
        if name not in _DOORS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                _DOORS[name](module)

            spec.loader.exec_module = exec_module
        return spec


def _watch_configs(module):
    _watch(module.Config, '_get_cfg_path', _names_ours)
    _watch(module.Config, '_get_base_modules', _imports_ours)


def _watch_hub(module):
    _watch(module, 'get_config', _names_ours)
    _watch(module, 'get_model', _names_ours)


def _watch(holder, name, asks):
    """Lets a function import mmfakd, which replaces it, before it is asked for ours."""
    original = getattr(holder, name)

    def door(*args, **kwargs):
        if 'mmfakd' not in sys.modules and asks(*args, **kwargs):
            import mmfakd  # noqa: F401

            return getattr(holder, name)(*args, **kwargs)
        return original(*args, **kwargs)

    door.__doc__ = original.__doc__
    setattr(holder, name, staticmethod(door) if isinstance(holder, type) else door)


def _names_ours(cfg_path, *args, **kwargs):
    return str(cfg_path).startswith('mmfakd::')


def _imports_ours(nodes):
    import ast

    return any("module='mmfakd." in ast.dump(node) for node in nodes)


_DOORS = {'mmengine.config.config': _watch_configs, 'mmengine.hub.hub': _watch_hub}
sys.meta_path.insert(0, _Watcher())
