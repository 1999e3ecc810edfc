# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What MMEngine looks for here, and public names that have moved into their rooms.

The names are imported when they are used.
"""

from importlib import import_module
from typing import Any

from .register_all_modules import register_all_modules

_ROOMS = {
    'MDISTILLER_ARCHS': 'checkpoints.mdistiller_zoo',
    'convert_famkd_state_dict': 'checkpoints.famkd',
    'convert_mdistiller_state_dict': 'checkpoints.mdistiller',
    'export_student': 'checkpoints.student',
    'fetch_checkpoint': 'checkpoints.fetch',
    'find_mdistiller_archs': 'checkpoints.mdistiller',
    'load_weights': 'checkpoints.load',
    'mdistiller_model_cfg': 'checkpoints.mdistiller_zoo',
    'resolve_model_cfg': 'model_zoo.resolve',
    'student_config': 'checkpoints.student',
}
__all__ = ['register_all_modules', *sorted(_ROOMS)]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'mmfakd.{_ROOMS[name]}'), name)
