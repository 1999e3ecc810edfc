# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Converters, loaders and helpers."""

from .convert_famkd_state_dict import convert_famkd_state_dict
from .convert_mdistiller_state_dict import (
    convert_mdistiller_state_dict,
    find_mdistiller_archs,
)
from .export_student import export_student, student_config
from .fetch_checkpoint import fetch_checkpoint
from .load_weights import load_weights
from .mdistiller_model_cfg import MDISTILLER_ARCHS, mdistiller_model_cfg
from .register_all_modules import register_all_modules
from .resolve_model_cfg import resolve_model_cfg

__all__ = [
    'MDISTILLER_ARCHS',
    'convert_famkd_state_dict',
    'convert_mdistiller_state_dict',
    'export_student',
    'fetch_checkpoint',
    'find_mdistiller_archs',
    'load_weights',
    'mdistiller_model_cfg',
    'register_all_modules',
    'resolve_model_cfg',
    'student_config',
]
