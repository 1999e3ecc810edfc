# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""ReviewKD's fusion of a feature with the deeper one."""

import torch
from torch import Tensor, nn

from mmfakd.ops.maps import check_channels, check_real


class AttentionBasedFusion(nn.Module):
    r"""Add two features, each weighted by a map computed from both.

    .. math::
        O = a \odot X + b \odot Y, \qquad
        (a, b) = \sigma(W_{1 \times 1} [X; Y] + \beta)

    with :math:`a, b` one map each, shared by all channels.

    Source: *Distilling Knowledge via Knowledge Review*, CVPR 2021
    (arXiv 2104.09044), where it is called ABF.

    Args:
        channels (int): Channels C of both inputs and of the output.

    Shapes:
        - x, y: (N, C, H, W) both.
        - Output: (N, C, H, W).

    Raises:
        ValueError: At construction for channels that are no positive integer; in
            ``forward`` for inputs of different or unexpected shapes.
        TypeError: In ``forward`` if an input is complex or integer.

    Examples:
        >>> import torch
        >>> from mmfakd.models.layers import AttentionBasedFusion
        >>> feature, deeper = torch.rand(2, 8, 6, 6), torch.rand(2, 8, 6, 6)
        >>> AttentionBasedFusion(8)(feature, deeper).shape
        torch.Size([2, 8, 6, 6])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_channels('AttentionBasedFusion', channels=channels)
        self.channels = channels
        self.attention = nn.Conv2d(2 * channels, 2, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuse two features.

        Args:
            x (Tensor): Feature of this level, (N, C, H, W).
            y (Tensor): Feature of the deeper level, (N, C, H, W).

        Returns:
            Tensor: Fused feature (N, C, H, W).

        Raises:
            TypeError: If one is complex or integer.
            ValueError: If the shapes differ or are not (N, channels, H, W).
        """
        check_real('AttentionBasedFusion', x, y)
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f'AttentionBasedFusion got features of shape {tuple(x.shape)} and '
                f'{tuple(y.shape)}, expected two of one shape (N, {self.channels}, H, '
                'W): match channels and resize before.'
            )
        weight = self.attention(torch.cat([x, y], dim=1)).sigmoid()
        return x * weight[:, :1] + y * weight[:, 1:]
