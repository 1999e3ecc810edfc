# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One connector for each level, without exchange between the levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from torch import Tensor, nn

from mmfakd.registry import MODELS

from .per_level import (
    channels_per_level,
    check_count,
    count_levels,
    per_level,
    sizes_and_scales,
)
from .review_level import locate

_CONNECTOR = {'type': 'mmfakd.FrequencyAttentionConnector'}


@MODELS.register_module()
class LayerwiseConnector(BaseConnector):
    r"""Predict the teacher's feature of every level from the student's of that level.

    .. math::
        \hat{T}_l = c_l(X_l)

    with one connector :math:`c_l` a level, by default the paper's layer-to-layer
    form. It stands where :class:`ReviewConnector` stands, whose levels also learn
    from the deeper ones.

    Source: the layer-to-layer form of *Frequency Attention for Knowledge
    Distillation*, WACV 2024 (arXiv 2403.05894).

    Args:
        in_channels (Sequence[int]): Channels Ci of the student's features, shallow to
            deep.
        out_channels (Sequence[int]): Channels Co of the teacher's features.
        sizes (Sequence[int | Sequence[int]], optional): Height and width, in pixels,
            of the teacher's features, given to each connector as ``size``. None
            leaves the size to ``connector``, which then has ``modes``. It may have
            both: a filter of so many frequencies, on maps of that size.
        scales (float | Sequence[float], optional): Without ``sizes``, size of the
            teacher's feature over that of the student's, given to each connector as
            ``scale``. Defaults to None, for 1. Sizes and scales act as in
            :class:`ReviewConnector`, whose level each default connector holds.
        connector (dict | Sequence[dict]): Config, or one for each level, of the
            connector of a level, without its channels and size. Defaults to
            ``dict(type='mmfakd.FrequencyAttentionConnector')``.
        with_cp (bool): Whether the connectors save memory by computing twice; given
            to each of them if True. Defaults to False.
        init_cfg (dict, optional): Initialisation of MMEngine. Defaults to None.

    Shapes:
        - Input: a sequence of features (N, Ci, H, W) or (N, Ci).
        - Output: the tuple of the connectors' predictions.

    Raises:
        ValueError: At construction for sequences of different lengths, a connector that
            is no config and for both of ``sizes`` and ``scales``; in ``forward`` for
            another number of levels and for features that a connector cannot take. The
            message names the level.
        TypeError: In ``forward`` for complex features and integers, likewise.

    Examples:
        >>> import torch
        >>> from mmfakd.models.connectors import LayerwiseConnector
        >>> connector = LayerwiseConnector([8, 16], [16, 32], sizes=[8, 4])
        >>> features = [torch.rand(2, 8, 8, 8), torch.rand(2, 16, 4, 4)]
        >>> [tuple(prediction.shape) for prediction in connector(features)]
        [(2, 16, 8, 8), (2, 32, 4, 4)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        sizes: Sequence[int | Sequence[int]] | None = None,
        scales: float | Sequence[float] | None = None,
        connector: Mapping | Sequence[Mapping] = _CONNECTOR,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        owner = type(self).__name__
        levels = count_levels(in_channels, owner)
        in_channels = channels_per_level(in_channels, levels, 'in_channels', owner)
        channels = channels_per_level(out_channels, levels, 'out_channels', owner)
        grids, factors = sizes_and_scales(sizes, scales, levels, owner)
        connectors = per_level(connector, levels, 'connector', owner)
        for i, cfg in enumerate(connectors):
            if not isinstance(cfg, Mapping) or 'type' not in cfg:
                raise ValueError(
                    f'{owner} got connector={cfg!r} for level {i}; expected '
                    "dict(type='mmfakd.FrequencyAttentionConnector', ...)."
                )
        self.levels = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(zip(in_channels, channels)):
            cfg = dict(connectors[i], in_channels=inputs, out_channels=outputs)
            if sizes is not None:
                cfg['size'] = grids[i]
            if scales is not None:
                cfg['scale'] = factors[i]
            if with_cp:
                cfg['with_cp'] = True
            self.levels.append(MODELS.build(cfg))

    def forward_train(self, feature: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Predict the teacher's features.

        Args:
            feature (Sequence[Tensor]): The student's features, shallow to deep, each
                (N, Ci, H, W) or (N, Ci).

        Returns:
            tuple[Tensor, ...]: The predictions, in the same order.

        Raises:
            TypeError: For complex features and integers; the message names the level.
            ValueError: For another number of levels, and for features that a level
                cannot take; the message names the level.
        """
        check_count(feature, len(self.levels), 'LayerwiseConnector')
        predictions = []
        for i, (level, x) in enumerate(zip(self.levels, feature)):
            try:
                predictions.append(level(x))
            except (TypeError, ValueError) as error:
                raise locate(error, f'level {i}', batch=0) from error
        return tuple(predictions)
