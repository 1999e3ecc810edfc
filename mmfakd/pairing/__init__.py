# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillation configs for any two models."""

from .pair import make_pair
from .plan import METHODS, Plan
from .render import write_config

__all__ = ['METHODS', 'Plan', 'make_pair', 'write_config']
