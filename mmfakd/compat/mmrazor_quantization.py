# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Let mmrazor 1.0 be imported on torch 2, without its quantization part."""

from types import ModuleType
from typing import Any

from .import_hook import Execute, around_import

_SUBPACKAGE = 'mmrazor.structures.quantization'


class _Unavailable(type):
    """Metaclass of a name whose real definition could not be imported."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return cls()

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise ImportError(
            f"{_SUBPACKAGE}.{cls.__name__} is not available: mmrazor's "
            'quantization uses names that torch has removed since version 1.13 '
            f'(importing it gave "{cls.__dict__["reason"]}"; mmrazor threads '
            '#615 and #632). Distillation does not need it; for quantization use '
            'an environment with torch 1.13, without mmfakd.'
        )

    __getitem__ = __call__


def _execute(real: Execute, module: ModuleType) -> None:
    """Run the real subpackage; where that fails, leave placeholders in it."""
    try:
        real(module)
    except (ImportError, AttributeError) as error:
        reason = str(error)

        def placeholder(name: str) -> Any:
            if name.startswith('__'):
                raise AttributeError(name)
            return _Unavailable(name, (), {'reason': reason})

        # `from .quantization import *` then binds nothing, and
        # `from mmrazor.structures.quantization import Name` a placeholder.
        vars(module).update(__all__=[], __getattr__=placeholder)


def allow_mmrazor_without_quantization() -> None:
    """Make ``import mmrazor.models`` work where mmrazor's quantization cannot.

    mmrazor 1.0.0, its last release, builds quantization configs while it is
    imported, from names that torch 2 no longer has. The whole library then
    fails with a misleading "`torch>=1.13` is not installed properly" (upstream
    threads https://github.com/open-mmlab/mmrazor/issues/615 and
    https://github.com/open-mmlab/mmrazor/issues/632). With this shim a failing
    ``mmrazor.structures.quantization`` is replaced by placeholders that raise an
    :class:`ImportError` with the reason when they are used. Where it can be
    imported, nothing changes. It works after a failed attempt to import mmrazor,
    too, because Python drops the modules that failed.
    """
    around_import(_SUBPACKAGE, _execute)
