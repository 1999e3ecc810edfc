# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Shims that wait for the library that they are for."""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Callable, Optional


class _ThenCall(Loader):
    """Load a module as its own loader does, then call something."""

    def __init__(self, loader: Loader, action: Callable[[], None]) -> None:
        self.loader = loader
        self.action = action

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is as if nobody had looked on.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.action()


class _Waiting(MetaPathFinder):
    """Find one library as usual, once, with an action behind its import."""

    def __init__(self, library: str, action: Callable[[], None]) -> None:
        self.library = library
        self.action = action

    def find_spec(
        self,
        fullname: str,
        path: Optional[Sequence[str]],
        target: Optional[ModuleType] = None,
    ) -> Optional[ModuleSpec]:
        if fullname != self.library:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenCall(spec.loader, self.action)
        return spec


def when_imported(library: str, action: Callable[[], None]) -> None:
    """Call something as soon as a library has been imported.

    So ``import mmfakd`` itself is quick: ``mmfakd --help`` needs no torch.

    Args:
        library: name of the package.
        action: what to call: at once where the package is there already. It may be
            called again, after a failed import for example.
    """
    if library in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Waiting(library, action))
