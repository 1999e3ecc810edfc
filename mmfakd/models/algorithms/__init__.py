# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Algorithms: teacher and student as one trainable model."""

from .feature_distill import FeatureDistill
from .teacher_evaluation import TeacherEvaluation

__all__ = ['FeatureDistill', 'TeacherEvaluation']
