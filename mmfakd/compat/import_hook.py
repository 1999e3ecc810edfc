# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Shims that wait for the module that they are for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import copy
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Runs a module's own code.
Execute = Callable[[ModuleType], None]


class _ImportHook(MetaPathFinder):
    """Find modules as the finders behind this one do, but see to their execution."""

    def __init__(self) -> None:
        self.watched: dict[str, Callable[[Execute, ModuleType], None]] = {}

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in self.watched:
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        found = (finder.find_spec(name, path, target) for finder in behind)
        spec = next(filter(None, found), None)
        if spec is None or spec.loader is None:
            return spec
        # Some finders give all modules the same loader.
        loader: Any = copy(spec.loader)
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            # From here on the loader is an ordinary one.
            del loader.exec_module
            self.watched[name](execute, module)

        spec.loader = loader
        loader.exec_module = exec_module
        return spec


def around_import(name: str, around: Callable[[Execute, ModuleType], None]) -> None:
    """Take part in every import of a module from now on, a reload included.

    Args:
        name (str): The module.
        around (Callable): Called in place of what runs the module's code, with that
            and the module.
    """
    # One hook for all, as each is asked at every import; it may be that of an mmfakd
    # which was imported before and dropped.
    hook = next((h for h in sys.meta_path if hasattr(h, 'watched')), None)
    if hook is None:
        hook = _ImportHook()
        sys.meta_path.insert(0, hook)
    hook.watched.setdefault(name, around)


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Call something once a module has been imported, at once where it has been.

    So ``import mmfakd`` itself is quick: ``mmfakd --help`` needs no torch.

    Args:
        name (str): The module.
        action (Callable): What to call; again after a reload.
    """

    def around(execute: Execute, module: ModuleType) -> None:
        execute(module)
        action()

    if name in sys.modules:
        action()
    around_import(name, around)
