# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Hooks, one concern each."""

from .check_finite_hook import CheckFiniteHook
from .epoch_seed_hook import EpochSeedHook
from .student_checkpoint_hook import StudentCheckpointHook

__all__ = ['CheckFiniteHook', 'EpochSeedHook', 'StudentCheckpointHook']
