# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Frequency attention: a learnable global filter and a local 1x1 convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfakd.ops import filter_storage
from mmfakd.ops.derived_buffers import DerivedBuffers
from mmfakd.ops.filter_inputs import FilterForm, FilterInputs
from mmfakd.ops.frequency_filter import frequency_filter
from mmfakd.ops.maps import check_map
from mmfakd.ops.no_autocast import no_autocast


class FrequencyAttention(DerivedBuffers):
    r"""Filter feature maps in the Fourier domain with one weight per frequency.

    .. math::
        Y = \gamma_1 \, \mathcal{F}^{-1}\!\big(M \odot \textstyle\sum_i K_i \odot
        \mathcal{F}(X_i)\big) + \gamma_2 \, (W_{1 \times 1} X + b)

    with :math:`K` a learnable complex filter of shape (Co, Ci, H, W), :math:`M` the
    high-pass mask and :math:`\gamma_1, \gamma_2` learnable scalars that start at
    0.5. The transforms are orthonormal.

    Source: *Frequency Attention for Knowledge Distillation*, WACV 2024
    (arXiv 2403.05894) and its published implementation, whose outputs, gradients
    and SGD trajectories this class reproduces (see "Storage").

    **High pass.** The published mask removes the frequencies -r <= f < r of both
    axes at once, with r = int(high_pass * int(n / 2)) for n rows (columns). It is
    one-sided: -r is cut, +r is kept. As features are real, a coefficient is the
    mean of its two mirrored copies, so where only one of them is cut the
    coefficient is halved. With the default 0.1 nothing is cut below 20 pixels
    (r = 0); at 28 and 32 pixels (r = 1) only the mean (DC) vanishes, and three of
    its neighbours, together with their mirror images, are halved.

    **Storage.** Inputs are real, hence only the Hermitian part of :math:`K` acts,
    and the F frequencies of a :class:`HalfSpectrum` hold it, about half of all. The
    filter is a *real* parameter of shape (F, groups, Ci / groups, Co / groups, 2),
    frequencies first, so that the sum over channels is one batched matrix product
    and neither distributed training, mixed precision nor weights-only loading meets
    a complex tensor. The coefficient is ``c * filter`` with c = 1/sqrt(2) where both
    mirrored copies of the full filter contribute, 1/2 where the mask leaves one and 0
    where it leaves none; the up to four frequencies that are their own mirror images
    have c = mask, and only the real part of their coefficient acts. With these
    constants SGD moves every coefficient exactly as it moves the full complex filter.

    **Sizes.** With ``size`` the filter is dense on that grid and the input must
    have that size. With ``modes`` the filter, its mask and its constants live on a
    grid of ``modes`` rows and columns, whose frequencies are matched with the
    input's by cycles per image: an input of any size goes in; frequencies that the
    filter lacks do not pass the global branch, and filter weights that the input
    lacks stay unused. The Nyquist row of an even number of modes stands for both
    of its signs in a taller input. On inputs of exactly ``modes`` pixels both
    forms are the same function.

    **Initial values.** The published ones: real and imaginary parts of the full
    filter are drawn from U[0, 1) / (Ci Co), Ci and Co counted within a group.

    **Precision.** Everything is computed in float32 (in float64 for float64 input)
    with autocast off, since Fourier transforms in half precision fail on CPUs and
    for most sizes on GPUs. The output has the dtype of the input.

    Args:
        in_channels (int): Channels Ci of the input.
        out_channels (int): Channels Co of the output.
        size (int | Sequence[int], optional): Height and width, in pixels, of the
            input. Exactly one of ``size`` and ``modes`` is given.
        modes (int | Sequence[int], optional): Number of frequencies kept along
            height and width.
        high_pass (float): Cut-off as a fraction of the Nyquist frequency, in
            [0, 1). 0 is no high pass. Defaults to 0.1.
        groups (int): The global filter mixes channels within each of this many
            groups only, which divides its parameters by ``groups``. The local
            convolution stays dense: it is small, and the only path between the
            groups. Defaults to 1.
        with_global (bool): Whether to build the global branch. Defaults to True.
        with_local (bool): Whether to build the local branch. Defaults to True.

    Shapes:
        - Input: (N, Ci, H, W), real.
        - Output: (N, Co, H, W), same dtype.

    Raises:
        ValueError: At construction if not exactly one of ``size`` and ``modes`` is
            given, if both branches are off, or for numbers out of range; in
            ``forward`` for another number of dimensions or channels, or, with
            ``size``, for another size.
        TypeError: In ``forward`` if the input is complex or integer.

    Examples:
        >>> import torch
        >>> from mmfakd.models.layers import FrequencyAttention
        >>> FrequencyAttention(16, 32, size=8)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
        >>> layer = FrequencyAttention(16, 32, modes=12)
        >>> layer(torch.rand(2, 16, 25, 42)).shape
        torch.Size([2, 32, 25, 42])
    """

    copies: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int | Sequence[int] | None = None,
        modes: int | Sequence[int] | None = None,
        high_pass: float = 0.1,
        groups: int = 1,
        with_global: bool = True,
        with_local: bool = True,
    ) -> None:
        super().__init__()
        if (size is None) == (modes is None):
            raise ValueError(
                f'FrequencyAttention got size={size} and modes={modes}, expected '
                'exactly one of them: give `size` for inputs of one known size (the '
                "paper's dense filter), or `modes` for inputs of any size."
            )
        if not (with_global or with_local):
            raise ValueError(
                'FrequencyAttention got with_global=False and with_local=False, '
                'which leaves nothing to compute: switch one of the branches on.'
            )
        numbers = (in_channels, out_channels, groups)
        if not all(isinstance(n, int) and n > 0 for n in numbers) or (
            in_channels % groups or out_channels % groups
        ):
            raise ValueError(
                f'FrequencyAttention got in_channels={in_channels}, out_channels='
                f'{out_channels} and groups={groups}, expected positive numbers of '
                'channels that `groups` divides: choose another number of groups.'
            )
        if not isinstance(high_pass, (int, float)) or not 0 <= high_pass < 1:
            raise ValueError(
                f'FrequencyAttention got high_pass={high_pass!r}, expected a fraction '
                'of the Nyquist frequency in [0, 1); 0 is no high pass.'
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.size = None if size is None else _pair(size, 'size')
        self.modes = None if modes is None else _pair(modes, 'modes')
        self.high_pass = high_pass
        self.groups = groups
        self.with_global = with_global
        self.with_local = with_local
        if with_global:
            channels = in_channels, out_channels
            weight = filter_storage.draw_filter(*channels, self.grid, groups)
            weight = filter_storage.pack_filter(weight, high_pass, groups)
            self.filter = nn.Parameter(weight)
            self.gate_global = nn.Parameter(torch.tensor([0.5]))
        if with_local:
            self.local = nn.Conv2d(in_channels, out_channels, 1)
            self.gate_local = nn.Parameter(torch.tensor([0.5]))
        self.register_derived()

    def derived(self) -> dict[str, Tensor]:
        """Derive what the state dict does not hold.

        Returns:
            dict[str, Tensor]: ``copies``, how many of each coefficient the mask leaves.
        """
        if not self.with_global:
            return {}
        # Integers, because `.half()` would round the constants themselves.
        return dict(copies=filter_storage.count_copies(self.grid, self.high_pass))

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid that the filter lives on."""
        grid = self.size or self.modes
        assert grid is not None
        return grid

    def forward(self, x: Tensor) -> Tensor:
        """Apply both branches.

        Args:
            x (Tensor): Real feature of shape (N, Ci, H, W).

        Returns:
            Tensor: Feature of shape (N, Co, H, W) and of the dtype of ``x``.

        Raises:
            TypeError: If ``x`` is complex or integer.
            ValueError: If ``x`` has another shape than the layer was built for.
        """
        self._check(x)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        with no_autocast(x):
            weight = bias = gate = None
            if self.with_local:
                assert self.local.bias is not None
                gate = self.gate_local.to(dtype)
                weight, bias = self.local.weight.to(dtype), self.local.bias.to(dtype)
            if not self.with_global:
                assert weight is not None and bias is not None and gate is not None
                y = F.conv2d(x.to(dtype), weight * gate, bias * gate)
                return y.to(x.dtype)
            filters = self.filter.to(dtype), self.gate_global.to(dtype)
            form = FilterForm(self.grid, self.high_pass, self.copies)
            inputs = FilterInputs(x, *filters, weight, bias, gate, form)
            return frequency_filter(inputs)

    def spectrum(self) -> Tensor:
        """Effective filter: what multiplies the half spectrum of the input.

        The high-pass mask is applied, the gate of the branch is not. The full
        spectrum is its Hermitian completion. Wrap the call in ``torch.no_grad()``
        for pictures.

        Returns:
            Tensor: Complex, of shape (Co, Ci / groups, H, W // 2 + 1) with (H, W)
            the grid of ``size`` or ``modes``; frequencies in the order of
            ``torch.fft.rfft2``.

        Raises:
            RuntimeError: If the layer has no global branch.
        """
        if not self.with_global:
            raise RuntimeError(
                'This FrequencyAttention has no spectrum, as it was built with '
                'with_global=False: build it with the global branch.'
            )
        dtype = torch.promote_types(self.filter.dtype, torch.float32)
        filter_ = self.filter.to(dtype)
        half = filter_storage.unpack_filter(filter_, self.copies, self.grid)
        return half.permute(2, 4, 3, 0, 1).flatten(0, 1)

    def extra_repr(self) -> str:
        """Summarise the arguments for ``print``."""
        grid = f'size={self.size}' if self.size else f'modes={self.modes}'
        return (
            f'{self.in_channels}, {self.out_channels}, {grid}, '
            f'high_pass={self.high_pass}, groups={self.groups}, '
            f'with_global={self.with_global}, with_local={self.with_local}'
        )

    def _check(self, x: Tensor) -> None:
        """Raise for inputs that the layer was not built for."""
        check_map(x, self.in_channels, 'FrequencyAttention')
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            raise ValueError(
                f'FrequencyAttention got an input of {x.shape[-2]}x{x.shape[-1]} '
                f'pixels, expected {self.size[0]}x{self.size[1]}: resize the '
                'feature, or build the layer with `modes` instead of `size`, which '
                'accepts any size.'
            )


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Two positive integers from one or two."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError(
            f'FrequencyAttention got {name}={value!r}, expected a positive integer '
            'or two of them, (height, width).'
        )
    return pair
