# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Converters, loaders and helpers."""

from .convert_famkd_state_dict import convert_famkd_state_dict
from .export_student import export_student, student_config
from .fetch_checkpoint import fetch_checkpoint
from .load_weights import load_weights
from .register_all_modules import register_all_modules
from .resolve_model_cfg import resolve_model_cfg

__all__ = [
    'convert_famkd_state_dict',
    'export_student',
    'fetch_checkpoint',
    'load_weights',
    'register_all_modules',
    'resolve_model_cfg',
    'student_config',
]
