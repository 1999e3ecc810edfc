# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""ShuffleNetV2 for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmpretrain.models.backbones.shufflenet_v2 import InvertedResidual
from mmpretrain.models.utils import channel_shuffle
from torch import Tensor, nn

from mmfakd.registry import MODELS

from .staged_backbone import BATCH_NORM, TORCH_INIT, StagedBackbone

_STEM = 24
_COUNTS = (4, 8, 4)
# Of the stages and of the last convolution, by width.
_CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


class ShuffleBlock(InvertedResidual):
    """mmpretrain's block with a name for the value before the last activation.

    Half of the channels pass through, and are not negative, as they come out of an
    activation: one activation over both halves, before the shuffle, gives the same
    output.

    Source: *ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
    Design*, ECCV 2018 (arXiv 1807.11164), figure 3 (c).

    Args:
        channels (int): Channels of input and output, an even number.
        norm_cfg (dict): Config of the norm layers.

    Shapes:
        - Input and output: (N, ``channels``, H, W).
    """

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__(channels, channels, stride=1, norm_cfg=norm_cfg)
        self.preact = nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x (Tensor): Shape (N, C, H, W), no value negative.

        Returns:
            Tensor: After activation and shuffle.
        """
        passed, changed = x.chunk(2, dim=1)
        first, depthwise, last = self.branch2
        changed = last(depthwise(first(changed)), activate=False)
        out = self.preact(torch.cat([passed, changed], 1))
        return channel_shuffle(self.relu(out), 2)


@MODELS.register_module()
class CIFARShuffleNetV2(StagedBackbone):
    """ShuffleNetV2 that halves 32 x 32 pixels three times.

    It differs from mmpretrain's ``ShuffleNetV2`` in the stem, one 1x1 convolution
    without a stride and a pool.

    Sources: *ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
    Design*, ECCV 2018 (arXiv 1807.11164); the form for CIFAR comes from *Contrastive
    Representation Distillation*, ICLR 2020 (arXiv 1910.10699).

    ===== ======== ============= ================ ===================
    stage channels size at 32 px after activation before activation
    ===== ======== ============= ================ ===================
    1     116      16 x 16       ``layer1``       ``layer1.3.preact``
    2     232      8 x 8         ``layer2``       ``layer2.7.preact``
    3     464      4 x 4         ``layer3``       ``layer3.3.preact``
    4     1024     4 x 4         ``conv2``        ``conv2.bn``
    ===== ======== ============= ================ ===================

    at width 1. What is recorded at ``preact`` are the channels before the shuffle:
    first the half that the block passes through, already activated, then the half
    that it computes.

    Args:
        widen_factor (float): 0.5, 1.0, 1.5 or 2.0. Defaults to 1.0.
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
        ValueError: For a width or a stage that does not exist.

    Examples:
        >>> import torch
        >>> from mmfakd.models.backbones import CIFARShuffleNetV2
        >>> CIFARShuffleNetV2()(torch.rand(2, 3, 32, 32))[0].shape
        torch.Size([2, 1024, 4, 4])
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        in_channels: int = 3,
        out_indices: Sequence[int] = (3,),
        norm_cfg: dict = BATCH_NORM,
        init_cfg: dict | list[dict] | None = TORCH_INIT,
    ) -> None:
        if widen_factor not in _CHANNELS:
            raise ValueError(
                f'CIFARShuffleNetV2 got widen_factor={widen_factor}, expected one of '
                f'{sorted(_CHANNELS)}.'
            )
        *stage_channels, last = _CHANNELS[widen_factor]
        modules: dict[str, nn.Module] = dict(
            conv1=ConvModule(in_channels, _STEM, 1, norm_cfg=norm_cfg)
        )
        width = _STEM
        for index, (channels, count) in enumerate(zip(stage_channels, _COUNTS), 1):
            modules[f'layer{index}'] = nn.Sequential(
                InvertedResidual(width, channels, stride=2, norm_cfg=norm_cfg),
                *(ShuffleBlock(channels, norm_cfg) for _ in range(count - 1)),
            )
            width = channels
        modules['conv2'] = ConvModule(width, last, 1, norm_cfg=norm_cfg)
        super().__init__(modules, out_indices, init_cfg)
