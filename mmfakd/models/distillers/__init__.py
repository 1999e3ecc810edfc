# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillers: recorders, connectors and losses in one module."""

from .balanced_weights import BalancedWeights
from .level_distiller import LevelDistiller
from .overhaul_distiller import OverhaulDistiller
from .review_distiller import ReviewDistiller
from .token_map import TokenMap
from .warmup import Warmup
from .warmup_distiller import WarmupDistiller

__all__ = [
    'BalancedWeights',
    'LevelDistiller',
    'OverhaulDistiller',
    'ReviewDistiller',
    'TokenMap',
    'Warmup',
    'WarmupDistiller',
]
