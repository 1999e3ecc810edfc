# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""ReviewKD's map from a fused feature to the teacher's channels."""

from torch import Tensor, nn

from mmfakd.ops.maps import check_channels, check_map


class ConvTransform(nn.Module):
    """Convolve, with 3x3 kernels in ReviewKD, without bias, as a norm follows.

    Stands where :class:`FrequencyAttention` stands, at any input size.

    Source: *Distilling Knowledge via Knowledge Review*, CVPR 2021
    (arXiv 2104.09044).

    Args:
        in_channels (int): Channels Ci of the input.
        out_channels (int): Channels Co of the output.
        kernel_size (int): Height and width of a kernel in pixels, an odd number.
            Defaults to 3.

    Shapes:
        - Input: (N, Ci, H, W).
        - Output: (N, Co, H, W).

    Raises:
        ValueError: At construction for a kernel that has no middle and for channels
            that are no positive integers; in ``forward`` for another number of
            dimensions or channels.
        TypeError: In ``forward`` if the input is complex or integer.

    Examples:
        >>> import torch
        >>> from mmfakd.models.layers import ConvTransform
        >>> ConvTransform(8, 16)(torch.rand(2, 8, 6, 6)).shape
        torch.Size([2, 16, 6, 6])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3
    ) -> None:
        super().__init__()
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f'ConvTransform got kernel_size={kernel_size!r}, expected an odd '
                'number: 1, 3, 5, ...'
            )
        check_channels(
            'ConvTransform', in_channels=in_channels, out_channels=out_channels
        )
        self.in_channels = in_channels
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=False,
        )
        nn.init.kaiming_uniform_(self.conv.weight, a=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x (Tensor): Feature (N, Ci, H, W).

        Returns:
            Tensor: Feature (N, Co, H, W).

        Raises:
            TypeError: If ``x`` is complex or integer.
            ValueError: If ``x`` has another shape than the layer was built for.
        """
        check_map(x, self.in_channels, 'ConvTransform')
        return self.conv(x)
