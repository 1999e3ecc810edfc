# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses: a function, and a thin registered class around it."""

from .crd_loss import CRDLoss
from .fft_feature_loss import FFTFeatureLoss, fft_feature_loss
from .hierarchical_context_loss import (
    HierarchicalContextLoss,
    hierarchical_context_loss,
)
from .logit_map_loss import LogitMapLoss
from .multi_level_logits_loss import MultiLevelLogitsLoss
from .nkd_loss import NKDLoss, nkd_loss
from .standardized_logits_loss import StandardizedLogitsLoss, standardize_logits

__all__ = [
    'CRDLoss',
    'FFTFeatureLoss',
    'HierarchicalContextLoss',
    'LogitMapLoss',
    'MultiLevelLogitsLoss',
    'NKDLoss',
    'StandardizedLogitsLoss',
    'fft_feature_loss',
    'hierarchical_context_loss',
    'nkd_loss',
    'standardize_logits',
]
