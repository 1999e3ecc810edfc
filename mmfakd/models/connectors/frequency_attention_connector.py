# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Frequency attention between one student layer and one teacher layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from torch import Tensor

from mmfakd.models.layers import FrequencyAttention
from mmfakd.registry import MODELS

from .per_level import channels_per_level, sizes_and_scales
from .review_level import ACT, NORM, ReviewLevel, checked_map, locate


@MODELS.register_module()
class FrequencyAttentionConnector(BaseConnector):
    r"""Predict one teacher feature from one student feature.

    .. math::
        \hat{T} = \mathrm{act}(\mathrm{norm}(\mathrm{FrequencyAttention}(
        \mathrm{resize}(m(X)))))

    with :math:`m` a 1x1 convolution with norm and activation where
    ``mid_channels`` differs from ``in_channels``, else the identity.

    Source: the layer-to-layer form of *Frequency Attention for Knowledge
    Distillation*, WACV 2024 (arXiv 2403.05894). It compares with the teacher's
    features before their activation, hence no activation by default.

    Args:
        in_channels (int): Channels Ci of the student's feature.
        out_channels (int): Channels Co of the teacher's feature.
        mid_channels (int, optional): Channels that the filter works on. None means
            ``in_channels``. Defaults to None.
        size (int | Sequence[int], optional): Height and width, in pixels, of the
            teacher's feature: the feature is resized to them. The filter is dense,
            unless ``modes`` are given.
        modes (int | Sequence[int], optional): Number of frequencies of the filter,
            which features of any size then fit. At least one of ``size`` and
            ``modes`` is given.
        norm_cfg (dict, optional): Norm after the 1x1 convolution and the filter.
            Defaults to ``dict(type='BN')``.
        act_cfg (dict, optional): Activation of the prediction. Defaults to None.
        match_act_cfg (dict, optional): Activation after the 1x1 convolution.
            Defaults to ``dict(type='ReLU')``.
        always_match (bool): Whether to build the 1x1 convolution even if the channels
            are equal. Defaults to False.
        scale (float): Without ``size``, size of the teacher's feature over that of the
            student's. Defaults to 1.0.
        with_cp (bool): Whether to save memory: only inputs and outputs are kept for
            the backward pass, which computes the rest again. Defaults to False.
        init_cfg (dict, optional): Initialisation of MMEngine. Defaults to None.
        **kwargs: Other arguments of :class:`FrequencyAttention`.

    Shapes:
        - Input: (N, Ci, H, W), or (N, Ci), taken as (N, Ci, 1, 1).
        - Output: (N, Co, H', W') with H', W' of ``size``, or H, W times ``scale``.

    Raises:
        ValueError: At construction as :class:`FrequencyAttention` does, and for a scale
            that is no number above 0; in ``forward`` for features of other channels or
            dimensions, and for a batch of one that a batch norm cannot take.
        TypeError: In ``forward`` for complex features and integers.

    Examples:
        >>> import torch
        >>> from mmfakd.models.connectors import FrequencyAttentionConnector
        >>> connector = FrequencyAttentionConnector(16, 64, size=8)
        >>> connector(torch.rand(2, 16, 4, 4)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int | None = None,
        size: int | Sequence[int] | None = None,
        modes: int | Sequence[int] | None = None,
        norm_cfg: dict | None = NORM,
        act_cfg: dict | None = None,
        match_act_cfg: dict | None = ACT,
        always_match: bool = False,
        scale: float = 1.0,
        with_cp: bool = False,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        owner = type(self).__name__
        channels_per_level([in_channels], 1, 'in_channels', owner)
        mid_channels = mid_channels or in_channels
        dense = None if modes is not None else size
        transform = FrequencyAttention(
            mid_channels, out_channels, size=dense, modes=modes, **kwargs
        )
        grids, _ = sizes_and_scales([size], None, 1, owner)
        _, scales = sizes_and_scales(None, [scale], 1, owner)
        self.in_channels = in_channels
        self.level = ReviewLevel(
            in_channels,
            mid_channels,
            transform,
            out_channels,
            size=grids[0],
            scale=scales[0],
            always_match=always_match,
            norm_cfg=norm_cfg,
            match_act_cfg=match_act_cfg,
            act_cfg=act_cfg,
            with_cp=with_cp,
        )

    def forward_train(self, feature: Tensor) -> Tensor:
        """Predict the teacher's feature.

        Args:
            feature (Tensor): The student's feature, (N, Ci, H, W) or (N, Ci).

        Returns:
            Tensor: The prediction (N, Co, H', W').

        Raises:
            TypeError: For complex features and integers.
            ValueError: For other features that the connector cannot take.
        """
        try:
            return self.level(checked_map(feature, self.in_channels))[0]
        except (TypeError, ValueError) as error:
            batch = len(feature) if isinstance(feature, Tensor) else 0
            raise locate(error, 'FrequencyAttentionConnector', batch) from error
