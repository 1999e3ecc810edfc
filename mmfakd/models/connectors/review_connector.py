# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Knowledge review: a pyramid of predictions from deep to shallow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature

from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from torch import Tensor, nn

from mmfakd.ops.filter_groups import MOST_MODE_WEIGHTS, fewest_groups
from mmfakd.registry import MODELS

from .per_level import (
    channels_per_level,
    check_count,
    count_levels,
    per_level,
    sizes_and_scales,
)
from .review_level import ACT, NORM, ReviewLevel, checked_map, locate

DEFAULT_MODES = 16
_FUSION = {'type': 'mmfakd.LocalCrossAttention'}
_TRANSFORM = {'type': 'mmfakd.FrequencyAttention'}


@MODELS.register_module()
class ReviewConnector(BaseConnector):
    """Predict the teacher's features of all levels, each with the deeper ones' help.

    From deep to shallow every level fuses the student's feature with what the
    deeper level passes on, and predicts the teacher's feature of that level, see
    :class:`ReviewLevel` for the equations. The defaults are FAM-KD's: local cross
    attention fuses, frequency attention predicts. ReviewKD is

    .. code-block:: python

        dict(type='mmfakd.ReviewConnector',
             in_channels=[16, 32, 64], out_channels=[16, 32, 64], mid_channels=64,
             fusion=dict(type='mmfakd.AttentionBasedFusion'),
             transform=dict(type='mmfakd.ConvTransform'),
             always_match=True, match_act_cfg=None, act_cfg=None)

    Source: *Frequency Attention for Knowledge Distillation*, WACV 2024
    (arXiv 2403.05894) and its published implementation, whose outputs and training
    this class reproduces without the convolution that has no effect there (at the
    deepest level); *Distilling Knowledge via Knowledge Review*, CVPR 2021
    (arXiv 2104.09044).

    This is the one place where features are resized, to the nearest neighbours: the
    student's to the teacher's grid, be it finer or coarser (``sizes`` or ``scales``),
    and a deeper level's to the next shallower one's, which may be as large, as in a
    plain vision transformer, or smaller.

    All sequences run shallow to deep, one entry a level.

    Args:
        in_channels (Sequence[int]): Channels Ci of the student's features.
        out_channels (Sequence[int]): Channels Co of the teacher's features.
        mid_channels (int | Sequence[int], optional): Channels that fusion and
            transform work on. None means those of the student. Local cross
            attention wants even numbers. Defaults to None.
        sizes (Sequence[int | tuple[int, int]], optional): Height and width, in
            pixels, of the teacher's features, for dense filters: features are
            resized to them. None means that features of any size go in, and the
            filter uses ``modes``. Defaults to None.
        scales (float | Sequence[float], optional): Without ``sizes``, size of the
            teacher's feature over that of the student's; products are rounded, halves
            up. Defaults to None, for 1.
        fusion (dict, optional): Config of the layer that fuses two features;
            ``channels`` is filled in. None lets every level predict by itself.
            Defaults to ``dict(type='mmfakd.LocalCrossAttention')``.
        transform (dict | Sequence[dict]): Config, or one for each level, of the
            layer that predicts the teacher's feature; ``in_channels`` and
            ``out_channels`` are filled in, and, where the layer has these arguments
            and the config names neither, ``size`` (with ``sizes``) or ``modes``
            (without, 16, in as few ``groups`` as keep a filter at or below 2^20
            weights: 1 for 64 channels, 16 for 256). For small maps give as many modes
            as the short side has pixels.
            Defaults to ``dict(type='mmfakd.FrequencyAttention')``.
        norm_cfg (dict, optional): Norm after each 1x1 convolution and transform.
            None is no norm. Defaults to ``dict(type='BN')``.
        act_cfg (dict, optional): Activation of the predictions; None where the
            teacher's features are taken before their activation.
            Defaults to ``dict(type='ReLU')``.
        match_act_cfg (dict, optional): Activation after each 1x1 convolution that
            matches channels. Defaults to ``dict(type='ReLU')``.
        always_match (bool): Whether levels whose channels equal ``mid_channels``
            get a 1x1 convolution as well. Defaults to False.
        with_cp (bool): Whether to save memory: a level keeps only its inputs and
            outputs for the backward pass, which computes the rest again.
            Defaults to False.
        init_cfg (dict, optional): Initialisation of MMEngine. Defaults to None,
            which keeps the published one.

    Shapes:
        - Input: a sequence of features (N, Ci, H, W) or (N, Ci), the latter taken
          as (N, Ci, 1, 1).
        - Output: the tuple of predictions (N, Co, H', W'), with H', W' of ``sizes``,
          or H, W times ``scales``.

    Raises:
        ValueError: At construction for sequences of different lengths and for both
            of ``sizes`` and ``scales``; in ``forward`` for another number of levels,
            and for channels, sizes or a batch of one that a level cannot take. The
            message names the level.
        TypeError: In ``forward`` for complex features and integers, likewise.

    Examples:
        >>> import torch
        >>> from mmfakd.models.connectors import ReviewConnector
        >>> connector = ReviewConnector([8, 16, 16], [8, 16, 16], sizes=[8, 4, 1])
        >>> features = [torch.rand(2, 8, 8, 8), torch.rand(2, 16, 4, 4)]
        >>> features.append(torch.rand(2, 16))
        >>> [tuple(prediction.shape) for prediction in connector(features)]
        [(2, 8, 8, 8), (2, 16, 4, 4), (2, 16, 1, 1)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        mid_channels: int | Sequence[int] | None = None,
        sizes: Sequence[int | Sequence[int]] | None = None,
        scales: float | Sequence[float] | None = None,
        fusion: dict | None = _FUSION,
        transform: dict | Sequence[dict] = _TRANSFORM,
        norm_cfg: dict | None = NORM,
        act_cfg: dict | None = ACT,
        match_act_cfg: dict | None = ACT,
        always_match: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        owner = type(self).__name__
        levels = count_levels(in_channels, owner)
        channels = {
            'in_channels': in_channels,
            'out_channels': out_channels,
            'mid_channels': in_channels if mid_channels is None else mid_channels,
        }
        self.in_channels, self.out_channels, self.mid_channels = (
            channels_per_level(value, levels, name, owner)
            for name, value in channels.items()
        )
        self.sizes, self.scales = sizes_and_scales(sizes, scales, levels, owner)
        transforms = per_level(transform, levels, 'transform', owner)
        self.levels = nn.ModuleList()
        for i in range(levels):
            try:
                fuse, predict = self._build_layers(i, fusion, transforms[i])
            except ValueError as error:
                raise ValueError(
                    f'{owner}, level {i} (of 0 to {levels - 1}, mid_channels='
                    f'{self.mid_channels}): {error}'
                ) from error
            self.levels.append(
                ReviewLevel(
                    self.in_channels[i],
                    self.mid_channels[i],
                    predict,
                    self.out_channels[i],
                    fuse,
                    None if fuse is None else self.mid_channels[i + 1],
                    self.sizes[i],
                    self.scales[i],
                    always_match,
                    norm_cfg,
                    match_act_cfg,
                    act_cfg,
                    with_cp,
                )
            )

    def _build_layers(
        self, level: int, fusion: Mapping | None, transform: Mapping
    ) -> tuple[nn.Module | None, nn.Module]:
        """Fusion and transform of a level; the deepest has no fusion."""
        for name, given in (('fusion', fusion), ('transform', transform)):
            described = isinstance(given, Mapping) and 'type' in given
            if not described and (name, given) != ('fusion', None):
                raise ValueError(f'{name}={given!r}; expected dict(type=...).')
        mid = self.mid_channels[level]
        channels = {'in_channels': mid, 'out_channels': self.out_channels[level]}
        predict = _build_transform({**transform, **channels}, self.sizes[level])
        if fusion is None or level == len(self.mid_channels) - 1:
            return None, predict
        return MODELS.build({**fusion, 'channels': mid}), predict

    def forward_train(self, feature: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Predict the teacher's features.

        Args:
            feature (Sequence[Tensor]): The student's features, shallow to deep, each
                (N, Ci, H, W) or (N, Ci).

        Returns:
            tuple[Tensor, ...]: The predictions (N, Co, H', W'), in the same order.

        Raises:
            TypeError: For complex features and integers; the message names the level.
            ValueError: For another number of levels, and for features that a level
                cannot take; the message names the level.
        """
        check_count(feature, len(self.levels), 'ReviewConnector')
        predictions: list[Tensor] = []
        deeper = None
        for i in reversed(range(len(self.levels))):
            x = feature[i]
            try:
                x = checked_map(x, self.in_channels[i])
                prediction, deeper = self.levels[i](x, deeper)
            except (TypeError, ValueError) as error:
                place = f'ReviewConnector, level {i} (of 0 to {len(self.levels) - 1})'
                batch = len(x) if isinstance(x, Tensor) else 0
                raise locate(error, place, batch) from error
            predictions.insert(0, prediction)
        return tuple(predictions)


def _build_transform(cfg: dict, size: tuple[int, int] | None) -> nn.Module:
    """Build a transform, with the grid that its config leaves open."""
    kind = cfg['type']
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    known = signature(kind).parameters if kind else {}
    if not cfg.keys() & {'size', 'modes'}:
        if size is not None and 'size' in known:
            cfg['size'] = size
        elif size is None and 'modes' in known:
            cfg['modes'] = DEFAULT_MODES
            channels = cfg['in_channels'], cfg['out_channels']
            groups = fewest_groups(*channels, DEFAULT_MODES**2, MOST_MODE_WEIGHTS)
            if 'groups' in known:
                cfg.setdefault('groups', groups)
    return MODELS.build(cfg)
