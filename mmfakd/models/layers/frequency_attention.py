# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Frequency attention: a learnable global filter and a local 1x1 convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfakd.ops.compiling import is_compiling
from mmfakd.ops.half_spectrum import HalfSpectrum
from mmfakd.ops.spectral_filter import SpectralFilter, plain_spectral_filter


class FrequencyAttention(nn.Module):
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
        if min(in_channels, out_channels, groups) < 1 or (
            in_channels % groups or out_channels % groups
        ):
            raise ValueError(
                f'FrequencyAttention got in_channels={in_channels}, out_channels='
                f'{out_channels} and groups={groups}, expected positive numbers of '
                'channels that `groups` divides: choose another number of groups.'
            )
        if not 0 <= high_pass < 1:
            raise ValueError(
                f'FrequencyAttention got high_pass={high_pass}, expected a fraction '
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
            grid = self.grid
            weight = _reference_init(in_channels, out_channels, grid, groups)
            self.filter = nn.Parameter(pack_filter(weight, high_pass, groups))
            self.gate_global = nn.Parameter(torch.tensor([0.5]))
            # Integers, because `.half()` would round the constants themselves.
            self.copies: Tensor
            self.register_buffer(
                'copies', _count_copies(*grid, high_pass), persistent=False
            )
        if with_local:
            self.local = nn.Conv2d(in_channels, out_channels, 1)
            self.gate_local = nn.Parameter(torch.tensor([0.5]))

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
        with torch.autocast(device_type=x.device.type, enabled=False):
            weight = bias = None
            if self.with_local:
                # The gates scale the small tensors of weights, not the large ones
                # of features; the function and its gradients are the same.
                assert self.local.bias is not None
                gate_local = self.gate_local.to(dtype)
                weight = self.local.weight.to(dtype) * gate_local
                bias = self.local.bias.to(dtype) * gate_local
            if not self.with_global:
                assert weight is not None
                return F.conv2d(x.to(dtype), weight, bias).to(x.dtype)
            apply = plain_spectral_filter if is_compiling() else SpectralFilter.apply
            gate = self.gate_global.to(dtype)
            filter_, scale, grid = self._shared_filter(x.shape[-2:], dtype)
            if (
                weight is not None
                and self._can_merge(grid, x)
                and _merge_pays(filter_, x)
            ):
                factor = gate if scale is None else gate * scale
                filter_ = _merge(filter_, factor, weight)
                if x.shape[-2:] == (1, 1):
                    # The mean is all there is, and it is real.
                    weight = filter_[0, 0, ..., 0].t()[..., None, None]
                    return F.conv2d(x.to(dtype), weight, bias).to(x.dtype)
                return apply(x, filter_, None, None, None, bias, grid)
            return apply(x, filter_, scale, gate, weight, bias, grid)

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
        double = self.filter.dtype == torch.float64
        half = self._half_filter(torch.float64 if double else torch.float32)
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
        if not x.is_floating_point():
            raise TypeError(
                f'FrequencyAttention got an input of dtype {x.dtype}, expected real '
                'floating point features: it transforms to the Fourier domain itself.'
            )
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'FrequencyAttention got an input of shape {tuple(x.shape)}, expected '
                f'(N, {self.in_channels}, H, W): adapt `in_channels` or the feature.'
            )
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            raise ValueError(
                f'FrequencyAttention got an input of {x.shape[-2]}x{x.shape[-1]} '
                f'pixels, expected {self.size[0]}x{self.size[1]}: resize the '
                'feature, or build the layer with `modes` instead of `size`, which '
                'accepts any size.'
            )

    def _can_merge(self, grid: HalfSpectrum, x: Tensor) -> bool:
        """Whether the coefficients can take up the local branch.

        They must mix all channels, as it does, and pass all frequencies of the input.
        """
        height, width = x.shape[-2:]
        full = HalfSpectrum(height, width // 2 + 1, width)
        return self.groups == 1 and grid == full

    def _scale(self, dtype: torch.dtype) -> Tensor:
        """The constants c of shape (F,)."""
        return self.copies.to(dtype).sqrt() / 2

    def _half_filter(self, dtype: torch.dtype) -> Tensor:
        """Coefficients (H, W // 2 + 1, G, Ci / G, Co / G), complex."""
        compact = torch.view_as_complex(self.filter.to(dtype))
        compact = compact * self._scale(dtype)[:, None, None, None]
        return _frequencies(*self.grid).expand(compact)

    def _shared_filter(
        self, size: Sequence[int], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None, HalfSpectrum]:
        """Coefficients of the frequencies that filter and input share.

        Args:
            size (Sequence[int]): Height and width of the input.
            dtype (torch.dtype): Dtype of the coefficients.

        Returns:
            tuple[Tensor, Tensor | None, HalfSpectrum]: Coefficients, what remains to
            multiply them with, and their frequencies, as :class:`SpectralFilter`
            takes them.
        """
        if tuple(size) == self.grid:
            return self.filter.to(dtype), self._scale(dtype), _frequencies(*size)
        half = self._half_filter(dtype)
        (height, width), (rows, columns) = size, self.grid
        # Rows 0 .. top - 1 and -bottom .. -1, columns 0 .. side - 1. A filter row of
        # frequency n / 2 (the Nyquist row of an even n) serves +n / 2 and -n / 2 of a
        # taller input.
        top = min((height + 1) // 2, rows // 2 + 1)
        bottom = min(height // 2, rows // 2)
        side = min(width // 2, columns // 2) + 1
        half = torch.cat([half[:top, :side], half[rows - bottom :, :side]])
        grid = HalfSpectrum(top + bottom, side, width)
        return torch.view_as_real(grid.compact(half).resolve_conj()), None, grid


def pack_filter(weight: Tensor, high_pass: float = 0.1, groups: int = 1) -> Tensor:
    """Convert a full complex filter to the parameter of FrequencyAttention.

    The layer then computes what the full filter computes between full complex
    transforms, and SGD moves it alike. Linear and differentiable: its adjoint maps
    gradients of the parameter to gradients of the full filter.

    Source: derived for this package from the published implementation of arXiv
    2403.05894, see "Storage" in :class:`FrequencyAttention`.

    Args:
        weight (Tensor): Complex, of shape (Ci / groups, Co, H, W), frequencies in
            the order of ``torch.fft.fft2``.
        high_pass (float): Cut-off as in :class:`FrequencyAttention`.
        groups (int): Groups as in :class:`FrequencyAttention`.

    Returns:
        Tensor: Real, of shape (F, groups, Ci / groups, Co / groups, 2), for the F
        frequencies of :class:`HalfSpectrum`.

    Raises:
        TypeError: If ``weight`` is not complex.
        ValueError: If it does not have four dimensions.
    """
    if not weight.is_complex():
        raise TypeError(
            f'pack_filter got a weight of dtype {weight.dtype}, expected a complex '
            'one: view a real one of shape (..., 2) with torch.view_as_complex.'
        )
    if weight.ndim != 4:
        raise ValueError(
            f'pack_filter got a weight of shape {tuple(weight.shape)}, expected '
            '(in_channels / groups, out_channels, height, width).'
        )
    height, width = weight.shape[-2:]
    mask = _high_pass_mask(height, width, high_pass).to(weight.device)
    copies = _count_copies(height, width, high_pass).to(weight.device)
    scale = copies.to(weight.real.dtype).sqrt() / 2
    frequencies = _frequencies(height, width)

    def first(full: Tensor) -> Tensor:
        """The listed frequencies of (..., H, W), in front."""
        half = full[..., : width // 2 + 1]
        return frequencies.compact(half.movedim((-2, -1), (0, 1)))

    both = _with_mirror_image((weight * mask).movedim((-2, -1), (0, 1)))
    coefficient = first(both.movedim((0, 1), (-2, -1))) / 2
    # Where no copy is left the coefficient is 0, and so is the parameter.
    compact = coefficient / scale.clamp_min(0.5)[:, None, None]
    own = copies.new_zeros(len(copies), dtype=torch.bool)
    own[frequencies.own_mirror_images] = True
    compact = torch.where(own[:, None, None], first(weight), compact)
    compact = compact.unflatten(2, (groups, -1)).transpose(1, 2)
    return torch.view_as_real(compact.resolve_conj().contiguous())


def _merge_pays(filter_: Tensor, x: Tensor) -> bool:
    """Whether to pass over the filter some times instead of over the feature."""
    return filter_.numel() <= 2 * x.numel()


def _merge(filter_: Tensor, factor: Tensor, weight: Tensor) -> Tensor:
    """Coefficients (F, 1, Ci, Co, 2) of both branches together.

    To the Fourier domain the local branch is a filter that is the same everywhere.
    """
    local = weight.flatten(1).t()
    local = torch.stack([local, torch.zeros_like(local)], -1)
    return torch.addcmul(local, filter_, factor.view(-1, 1, 1, 1, 1))


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Two positive integers from one or two."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError(
            f'FrequencyAttention got {name}={value!r}, expected a positive integer '
            'or two of them, (height, width).'
        )
    return pair


def _reference_init(
    in_channels: int, out_channels: int, grid: tuple[int, int], groups: int
) -> Tensor:
    """Draw the full filter as published: U[0, 1) / (Ci Co), per group."""
    fan = in_channels // groups, out_channels // groups
    weight = torch.rand(fan[0], out_channels, *grid, 2) / (fan[0] * fan[1])
    return torch.view_as_complex(weight)


def _high_pass_mask(height: int, width: int, high_pass: float) -> Tensor:
    """Booleans (H, W) in the order of fft2, False where the published mask cuts."""

    def cut(n: int) -> Tensor:
        frequency = torch.arange(n)
        frequency[(n + 1) // 2 :] -= n
        reach = int(high_pass * (n // 2))
        return (-reach <= frequency) & (frequency < reach)

    return ~(cut(height)[:, None] & cut(width))


def _frequencies(height: int, width: int) -> HalfSpectrum:
    """The frequencies of a whole grid."""
    return HalfSpectrum(height, width // 2 + 1, width)


def _with_mirror_image(full: Tensor) -> Tensor:
    """Add the conjugate at -k to the value at every k of (H, W, ...)."""
    return full + full.flip(0, 1).roll((1, 1), (0, 1)).conj()


def _count_copies(height: int, width: int, high_pass: float) -> Tensor:
    """Integers m (F,) that give the constants c = sqrt(m) / 2.

    m counts the copies of a coefficient in the full filter that the mask leaves:
    0, 1 or 2. A frequency that is its own mirror image has one copy, and c = 1 for it,
    which is m = 4.
    """
    frequencies = _frequencies(height, width)
    mask = _high_pass_mask(height, width, high_pass).to(torch.uint8)
    copies = frequencies.compact(_with_mirror_image(mask)[:, : width // 2 + 1])
    for index in frequencies.own_mirror_images:
        copies[index] *= 2
    return copies
