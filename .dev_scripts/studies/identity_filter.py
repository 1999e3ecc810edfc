# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Frequency attention that starts near the identity, for the study of connectors."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS

from mmfakd.models.layers import FrequencyAttention
from mmfakd.ops.filter_storage import draw_filter, pack_filter


@MODELS.register_module()
class IdentityFilter(FrequencyAttention):
    r"""Frequency attention whose filter starts as the published one plus the identity.

    .. math::
        K = \frac{1}{\gamma_1} I + \mathcal{U}[0, 1) / (C_i C_o)

    The local branch starts as it does in :class:`FrequencyAttention`.

    Args:
        in_channels (int): Channels Ci of the input.
        out_channels (int): Channels Co of the output, as many.
        **kwargs: Other arguments of :class:`FrequencyAttention`.

    Shapes:
        - Input: (N, Ci, H, W).
        - Output: (N, Co, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, **kwargs)
        fan = in_channels // self.groups
        weight = draw_filter(in_channels, out_channels, self.grid, self.groups)
        identity = torch.eye(fan).repeat(1, self.groups)[:, :, None, None]
        weight = weight + identity / self.gate_global.detach()
        self.filter.data = pack_filter(weight, self.high_pass, self.groups)
