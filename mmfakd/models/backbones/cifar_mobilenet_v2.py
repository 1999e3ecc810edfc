# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MobileNetV2 for small images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mmcv.cnn import ConvModule
from mmpretrain.models.utils import InvertedResidual
from torch import nn

from mmfakd.registry import MODELS

from .staged_backbone import BATCH_NORM, HE_INIT, StagedBackbone

# Channels at full width, number of blocks and stride of the groups of each stage
# after the first block.
_STAGES = (
    ((24, 2, 1),),
    ((32, 3, 2),),
    ((64, 4, 2), (96, 3, 1)),
    ((160, 3, 2), (320, 1, 1)),
)


@MODELS.register_module()
class CIFARMobileNetV2(StagedBackbone):
    """MobileNetV2 that halves 32 x 32 pixels four times.

    It differs from mmpretrain's ``MobileNetV2`` in the strides, in ReLU instead of
    ReLU6, in widths that are not rounded to multiples of 8, and in a 1x1 convolution
    of its own before the first depthwise one.

    Sources: *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018
    (arXiv 1801.04381); the form for CIFAR, at half width, comes from *Contrastive
    Representation Distillation*, ICLR 2020 (arXiv 1910.10699).

    ===== =========== ============= ================ =================
    stage channels    size at 32 px after activation before activation
    ===== =========== ============= ================ =================
    1     24 w (12)   16 x 16       (none)           ``layer1``
    2     32 w (16)   8 x 8         (none)           ``layer2``
    3     96 w (48)   4 x 4         (none)           ``layer3``
    4     320 w (160) 2 x 2         (none)           ``layer4``
    5     1280        2 x 2         ``conv2``        ``conv2.bn``
    ===== =========== ============= ================ =================

    with w = ``widen_factor``, in brackets for one half. Stages 1 to
    4 end in linear bottlenecks, which no activation follows.

    Args:
        widen_factor (float): Width w. Defaults to 0.5.
        expand_ratio (int): Expansion of the bottlenecks. Defaults to 6.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): The stages, from 0, whose outputs are returned.
            Defaults to (4,).
        norm_cfg (dict): Config of the norm layers. Defaults to ``dict(type='BN')``.
        init_cfg (dict | list[dict], optional): MMEngine's initialisation config.
            Defaults to He's normal one over the outputs.

    Shapes:
        - Input: (N, C, H, W).
        - Output: tuple of the chosen stages, (N, C_i, H_i, W_i) as in the table,
          sizes rounded up.

    Raises:
        ValueError: If ``out_indices`` names a stage that does not exist.

    Examples:
        >>> import torch
        >>> from mmfakd.models.backbones import CIFARMobileNetV2
        >>> [x.shape[1:] for x in CIFARMobileNetV2(out_indices=(0, 4))(
        ...     torch.rand(2, 3, 32, 32))]
        [torch.Size([12, 16, 16]), torch.Size([1280, 2, 2])]
    """

    def __init__(
        self,
        widen_factor: float = 0.5,
        expand_ratio: int = 6,
        in_channels: int = 3,
        out_indices: Sequence[int] = (4,),
        norm_cfg: dict = BATCH_NORM,
        init_cfg: dict | list[dict] | None = HE_INIT,
    ) -> None:
        stem, width = int(32 * widen_factor), int(16 * widen_factor)
        conv = partial(ConvModule, norm_cfg=norm_cfg)
        residual = partial(InvertedResidual, norm_cfg=norm_cfg)
        modules: dict[str, nn.Module] = {}
        modules['conv1'] = conv(in_channels, stem, 3, stride=2, padding=1)
        # The first block expands nothing and has no shortcut, but keeps its first
        # convolution, which InvertedResidual would leave out.
        blocks = [conv(stem, stem, 1), residual(stem, width, stem)]
        for index, groups in enumerate(_STAGES, 1):
            for channels, count, stride in groups:
                channels = int(channels * widen_factor)
                for _ in range(count):
                    expanded = width * expand_ratio
                    blocks.append(residual(width, channels, expanded, stride=stride))
                    width, stride = channels, 1
            modules[f'layer{index}'] = nn.Sequential(*blocks)
            blocks = []
        last = int(1280 * max(widen_factor, 1))
        modules['conv2'] = conv(width, last, 1)
        super().__init__(modules, out_indices, init_cfg)
