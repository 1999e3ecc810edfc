# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillation in any PyTorch loop: two modules, no configs, no runner."""

from .distill import distill
from .distillation import Distillation

__all__ = ['Distillation', 'distill']
