# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""VGG networks for small images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mmcv.cnn import ConvModule
from torch import nn

from mmfakd.registry import MODELS

from .staged_backbone import BATCH_NORM, HE_INIT, StagedBackbone

_CHANNELS = (64, 128, 256, 512, 512)
# Convolutions of each stage, by depth, in which the field counts three linear layers.
_CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


@MODELS.register_module()
class CIFARVGG(StagedBackbone):
    """VGG with batch norm and one linear classifier, for small images.

    Stages of 3x3 convolutions; a max pool halves what enters a stage. The last
    stage of networks for 32 x 32 pixels is not halved.

    Batch norm follows every convolution, which therefore has no bias: it would have
    no effect and could not learn.

    Sources: *Very Deep Convolutional Networks for Large-Scale Image Recognition*,
    ICLR 2015 (arXiv 1409.1556); depth 8 and the rule of the last stage come from
    *Contrastive Representation Distillation*, ICLR 2020 (arXiv 1910.10699).

    ===== ======== ============= ================ ===========================
    stage channels size at 32 px after activation before activation
    ===== ======== ============= ================ ===========================
    1     64       32 x 32       ``layer1``       ``layer1.conv{n}.bn``
    2     128      16 x 16       ``layer2``       ``layer2.conv{n}.bn``
    3     256      8 x 8         ``layer3``       ``layer3.conv{n}.bn``
    4     512      4 x 4         ``layer4``       ``layer4.conv{n}.bn``
    5     512      4 x 4         ``layer5``       ``layer5.conv{n}.bn``
    ===== ======== ============= ================ ===========================

    where n is the number of convolutions of that stage: 1, 1, 1, 1, 1 for depth 8;
    1, 1, 2, 2, 2 for 11; 2, 2, 2, 2, 2 for 13; 2, 2, 3, 3, 3 for 16 and
    2, 2, 4, 4, 4 for 19.

    Args:
        depth (int): 8, 11, 13, 16 or 19.
        in_channels (int): Channels of the images. Defaults to 3.
        pool_last (bool): Whether what enters the last stage is halved, too. The field
            does so with 64 x 64 pixels and not with 32 x 32. Defaults to False.
        out_indices (Sequence[int]): The stages, from 0, whose outputs are returned.
            Defaults to (4,).
        norm_cfg (dict): Config of the norm layers. Defaults to ``dict(type='BN')``.
        init_cfg (dict | list[dict], optional): MMEngine's initialisation config.
            Defaults to He's normal one over the outputs.

    Shapes:
        - Input: (N, C, H, W), of at least 8 x 8 pixels, or 16 x 16 with
          ``pool_last``.
        - Output: tuple of the chosen stages, (N, C_i, H_i, W_i) as in the table.

    Raises:
        ValueError: For a depth or a stage that does not exist.

    Examples:
        >>> import torch
        >>> from mmfakd.models.backbones import CIFARVGG
        >>> CIFARVGG(8)(torch.rand(2, 3, 32, 32))[0].shape
        torch.Size([2, 512, 4, 4])
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        pool_last: bool = False,
        out_indices: Sequence[int] = (4,),
        norm_cfg: dict = BATCH_NORM,
        init_cfg: dict | list[dict] | None = HE_INIT,
    ) -> None:
        if depth not in _CONVOLUTIONS:
            raise ValueError(
                f'CIFARVGG got depth={depth}, expected one of {sorted(_CONVOLUTIONS)}.'
            )
        conv = partial(ConvModule, kernel_size=3, padding=1, norm_cfg=norm_cfg)
        stages: dict[str, nn.Module] = {}
        for index, (channels, count) in enumerate(zip(_CHANNELS, _CONVOLUTIONS[depth])):
            stage = nn.Sequential()
            if 0 < index < 4 or (index == 4 and pool_last):
                stage.add_module('pool', nn.MaxPool2d(2))
            for number in range(1, count + 1):
                stage.add_module(f'conv{number}', conv(in_channels, channels))
                in_channels = channels
            stages[f'layer{index + 1}'] = stage
        super().__init__(stages, out_indices, init_cfg)
