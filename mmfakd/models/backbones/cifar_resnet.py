# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The thin residual networks of the CIFAR experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.models.backbones.resnet import BasicBlock
from mmpretrain.models.backbones.resnet_cifar import ResNet_CIFAR

from mmfakd.registry import MODELS

from .staged_backbone import check_out_indices


@MODELS.register_module()
class CIFARResNet(ResNet_CIFAR):
    """Residual network of 6n + 2 layers in three stages of n basic blocks.

    mmpretrain's ``ResNet_CIFAR`` has the depths and the four stages of the ImageNet
    networks; this class adds the depths that CIFAR networks have.

    Sources: *Deep Residual Learning for Image Recognition*, CVPR 2016
    (arXiv 1512.03385), section 4.2, with 1x1 convolutions as shortcuts where the
    shape changes; the four times wider 8x4 and 32x4 come from *Contrastive
    Representation Distillation*, ICLR 2020 (arXiv 1910.10699).

    ===== ======== ============= ================== ================================
    stage channels size at 32 px after activation   before activation
    ===== ======== ============= ================== ================================
    1     C        32 x 32       ``layer1``         input of ``layer1.{n-1}.relu``
    2     2C       16 x 16       ``layer2``         input of ``layer2.{n-1}.relu``
    3     4C       8 x 8         ``layer3``         input of ``layer3.{n-1}.relu``
    ===== ======== ============= ================== ================================

    with C = ``base_channels``. A block has one ReLU, called twice: what enters its
    second call is the stage's output before the activation, which
    ``dict(type='mmrazor.ModuleInputs', source='backbone.layer3.8.relu')`` with
    ``record_idx=1, data_idx=0`` records.

    Args:
        depth (int): Number of layers, 6n + 2: 8, 14, 20, 32, 44, 56 or 110.
        stem_channels (int): Channels of the first convolution. Defaults to 16.
        base_channels (int): Channels C of the first stage. Defaults to 16.
        out_indices (Sequence[int]): The stages, from 0, whose outputs are returned.
            Defaults to (2,).
        **kwargs: Other arguments of mmpretrain's ``ResNet``.

    Shapes:
        - Input: (N, 3, H, W).
        - Output: tuple of the chosen stages: (N, C, H, W), (N, 2C, H/2, W/2) and
          (N, 4C, H/4, W/4), sizes rounded up.

    Raises:
        ValueError: For a depth or a stage that does not exist.

    Examples:
        >>> import torch
        >>> from mmfakd.models.backbones import CIFARResNet
        >>> CIFARResNet(20)(torch.rand(2, 3, 32, 32))[0].shape
        torch.Size([2, 64, 8, 8])
    """

    arch_settings = {6 * n + 2: (BasicBlock, (n, n, n)) for n in (1, 2, 3, 5, 7, 9, 18)}

    def __init__(
        self,
        depth: int,
        stem_channels: int = 16,
        base_channels: int = 16,
        out_indices: Sequence[int] = (2,),
        **kwargs: Any,
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(
                f'CIFARResNet got depth={depth}, expected one of '
                f'{sorted(self.arch_settings)}.'
            )
        stages = ('layer1', 'layer2', 'layer3')
        check_out_indices('CIFARResNet', out_indices, stages)
        super().__init__(
            depth,
            stem_channels=stem_channels,
            base_channels=base_channels,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=out_indices,
            zero_init_residual=kwargs.pop('zero_init_residual', False),
            **kwargs,
        )
