# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Connectors: student features in, predicted teacher features out.

The layers know nothing of registries, so they are registered here.
"""

from mmfakd.models.layers import (
    AttentionBasedFusion,
    ConvTransform,
    FrequencyAttention,
    LocalCrossAttention,
)
from mmfakd.registry import MODELS

from .frequency_attention_connector import FrequencyAttentionConnector
from .layerwise_connector import LayerwiseConnector
from .review_connector import ReviewConnector
from .review_level import ReviewLevel

for layer in (
    AttentionBasedFusion,
    ConvTransform,
    FrequencyAttention,
    LocalCrossAttention,
):
    MODELS.register_module(module=layer)

__all__ = [
    'FrequencyAttentionConnector',
    'LayerwiseConnector',
    'ReviewConnector',
    'ReviewLevel',
]
