# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Import everything mmfakd registers."""

from importlib import import_module

from mmengine.registry import init_default_scope as set_default_scope


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register every component of mmfakd.

    The registries do this by themselves when a config first names a component;
    ``mmengine.hub.get_model`` and scripts written for other OpenMMLab libraries
    call this function of every library.

    Args:
        init_default_scope: whether to make ``mmfakd`` the default scope, too.
    """
    for package in ('models', 'datasets', 'engine'):
        import_module(f'mmfakd.{package}')
    if init_default_scope:
        set_default_scope('mmfakd')
