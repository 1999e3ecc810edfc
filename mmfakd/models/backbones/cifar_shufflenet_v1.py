# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""ShuffleNetV1 for small images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from mmcv.cnn import ConvModule
from mmpretrain.models.utils import channel_shuffle
from torch import Tensor, nn

from mmfakd.registry import MODELS

from .staged_backbone import BATCH_NORM, TORCH_INIT, StagedBackbone

_STEM, _GROUPS = 24, 3
_STAGES = ((240, 4), (480, 8), (960, 4))


class ShuffleUnit(nn.Module):
    """Unit of ShuffleNetV1: grouped 1x1, depthwise 3x3, grouped 1x1, shortcut.

    With stride 2 the shortcut is an average pool, joined as further channels.

    Source: *ShuffleNet: An Extremely Efficient Convolutional Neural Network for
    Mobile Devices*, CVPR 2018 (arXiv 1707.01083), figure 2; as in the CIFAR networks
    of the field, an activation follows the depthwise convolution, too, and another
    one the joined channels.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, the shortcut's included.
        stride (int): 1 or 2.
        first_groups (int): Groups of the first convolution.
        groups (int): Groups of the last convolution.
        norm_cfg (dict): Config of the norm layers.

    Shapes:
        - Input: (N, ``in_channels``, H, W).
        - Output: (N, ``out_channels``, H, W) with stride 1, with stride 2 half of
          that, rounded up.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        first_groups: int,
        groups: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.concat = stride == 2
        if self.concat:
            out_channels -= in_channels
            self.shortcut: nn.Module = nn.AvgPool2d(3, stride=2, padding=1)
        else:
            self.shortcut = nn.Identity()
        mid = out_channels // 4
        self.groups = first_groups
        conv = partial(ConvModule, norm_cfg=norm_cfg)
        self.conv1 = conv(in_channels, mid, 1, groups=first_groups)
        self.conv2 = conv(mid, mid, 3, stride=stride, padding=1, groups=mid)
        self.conv3 = conv(mid, out_channels, 1, groups=groups, act_cfg=None)
        # A name under which the value before the activation can be recorded.
        self.preact = nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the unit.

        Args:
            x (Tensor): Shape (N, C, H, W).

        Returns:
            Tensor: After the activation.
        """
        out = channel_shuffle(self.conv1(x), self.groups)
        out = self.conv3(self.conv2(out))
        shortcut = self.shortcut(x)
        out = torch.cat([out, shortcut], 1) if self.concat else out + shortcut
        return self.relu(self.preact(out))


@MODELS.register_module()
class CIFARShuffleNetV1(StagedBackbone):
    """ShuffleNetV1 with three groups that halves 32 x 32 pixels three times.

    It differs from mmpretrain's ``ShuffleNetV1`` in the stem, one 1x1 convolution
    without a stride, and in the units (:class:`ShuffleUnit`).

    Sources: *ShuffleNet: An Extremely Efficient Convolutional Neural Network for
    Mobile Devices*, CVPR 2018 (arXiv 1707.01083); the form for CIFAR comes from
    *Contrastive Representation Distillation*, ICLR 2020 (arXiv 1910.10699).

    ===== ======== ============= ================ ===================
    stage channels size at 32 px after activation before activation
    ===== ======== ============= ================ ===================
    1     240      16 x 16       ``layer1``       ``layer1.3.preact``
    2     480      8 x 8         ``layer2``       ``layer2.7.preact``
    3     960      4 x 4         ``layer3``       ``layer3.3.preact``
    ===== ======== ============= ================ ===================

    Args:
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): The stages, from 0, whose outputs are returned.
            Defaults to (2,).
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
        >>> from mmfakd.models.backbones import CIFARShuffleNetV1
        >>> CIFARShuffleNetV1()(torch.rand(2, 3, 32, 32))[0].shape
        torch.Size([2, 960, 4, 4])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_indices: Sequence[int] = (2,),
        norm_cfg: dict = BATCH_NORM,
        init_cfg: dict | list[dict] | None = TORCH_INIT,
    ) -> None:
        modules: dict[str, nn.Module] = dict(
            conv1=ConvModule(in_channels, _STEM, 1, norm_cfg=norm_cfg)
        )
        width, first_groups = _STEM, 1
        for index, (channels, count) in enumerate(_STAGES, 1):
            stage = modules[f'layer{index}'] = nn.Sequential()
            for stride in (2, *[1] * (count - 1)):
                stage.append(
                    ShuffleUnit(
                        width, channels, stride, first_groups, _GROUPS, norm_cfg
                    )
                )
                width, first_groups = channels, _GROUPS
        super().__init__(modules, out_indices, init_cfg)
