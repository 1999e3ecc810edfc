# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Optimizer wrappers."""

from .cpu_amp_optim_wrapper import CpuAmpOptimWrapper

__all__ = ['CpuAmpOptimWrapper']
