# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Layers: pure torch, without registries, recorders or runners.

They are registered under their names in :mod:`mmfakd.models.connectors`.
"""

from mmfakd.ops.filter_storage import pack_filter

from .attention_based_fusion import AttentionBasedFusion
from .conv_transform import ConvTransform
from .frequency_attention import FrequencyAttention
from .local_cross_attention import LocalCrossAttention

__all__ = [
    'AttentionBasedFusion',
    'ConvTransform',
    'FrequencyAttention',
    'LocalCrossAttention',
    'pack_filter',
]
