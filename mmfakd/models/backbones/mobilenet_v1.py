# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MobileNetV1."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from torch import nn

from mmfakd.registry import MODELS

from .staged_backbone import BATCH_NORM, TORCH_INIT, StagedBackbone

# Channels and stride of the blocks of each stage.
_STAGES = (
    ((64, 1), (128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *[(512, 1)] * 5),
    ((1024, 2), (1024, 1)),
)


@MODELS.register_module()
class MobileNetV1(StagedBackbone):
    """MobileNetV1, the usual student of a ResNet-50 on ImageNet.

    Source: *MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
    Applications* (arXiv 1704.04861), table 1.

    ===== ======== ============== ================ ==============================
    stage channels size at 224 px after activation before activation
    ===== ======== ============== ================ ==============================
    1     128      56 x 56        ``layer1``       ``layer1.2.pointwise_conv.bn``
    2     256      28 x 28        ``layer2``       ``layer2.1.pointwise_conv.bn``
    3     512      14 x 14        ``layer3``       ``layer3.5.pointwise_conv.bn``
    4     1024     7 x 7          ``layer4``       ``layer4.1.pointwise_conv.bn``
    ===== ======== ============== ================ ==============================

    At 32 px the sizes are 8, 4, 2 and 1.

    Args:
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): The stages, from 0, whose outputs are returned.
            Defaults to (3,).
        norm_cfg (dict): Config of the norm layers. Defaults to ``dict(type='BN')``.
        init_cfg (dict | list[dict], optional): MMEngine's initialisation config.
            Defaults to torch's own initialisation of convolutions.

    Shapes:
        - Input: (N, C, H, W).
        - Output: tuple of the chosen stages, (N, C_i, H_i, W_i) as in the table,
          sizes rounded up.

    Raises:
        ValueError: If ``out_indices`` names a stage that does not exist.

    Examples:
        >>> import torch
        >>> from mmfakd.models.backbones import MobileNetV1
        >>> MobileNetV1()(torch.rand(1, 3, 224, 224))[0].shape
        torch.Size([1, 1024, 7, 7])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_indices: Sequence[int] = (3,),
        norm_cfg: dict = BATCH_NORM,
        init_cfg: dict | list[dict] | None = TORCH_INIT,
    ) -> None:
        width = 32
        conv = ConvModule(in_channels, width, 3, stride=2, padding=1, norm_cfg=norm_cfg)
        modules: dict[str, nn.Module] = dict(conv1=conv)
        for index, blocks in enumerate(_STAGES, 1):
            stage = modules[f'layer{index}'] = nn.Sequential()
            for channels, stride in blocks:
                stage.append(
                    DepthwiseSeparableConvModule(
                        width, channels, 3, stride=stride, padding=1, norm_cfg=norm_cfg
                    )
                )
                width = channels
        super().__init__(modules, out_indices, init_cfg)
