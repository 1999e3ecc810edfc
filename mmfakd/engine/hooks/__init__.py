# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Hooks, one concern each."""

from .check_data_hook import CheckDataHook
from .check_finite_hook import CheckFiniteHook
from .check_learning_hook import CheckLearningHook
from .epoch_seed_hook import EpochSeedHook
from .first_step_hook import FirstStepHook
from .learning_pictures_hook import LearningPicturesHook
from .learning_rate_hook import LearningRateHook
from .preemption_hook import PreemptionHook
from .provenance_hook import ProvenanceHook
from .resume_hook import ResumeHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .student_checkpoint_hook import StudentCheckpointHook

__all__ = [
    'CheckDataHook',
    'CheckFiniteHook',
    'CheckLearningHook',
    'EpochSeedHook',
    'FirstStepHook',
    'LearningPicturesHook',
    'LearningRateHook',
    'PreemptionHook',
    'ProvenanceHook',
    'ResumeHook',
    'SafeCheckpointHook',
    'StudentCheckpointHook',
]
