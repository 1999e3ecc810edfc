# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The computation behind FrequencyAttention, with a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .half_spectrum import HalfSpectrum

# Numbers worked on at a time: what stays in a CPU's cache, and what keeps a GPU busy.
_CPU_BLOCK = 2**18
_GPU_BLOCK = 2**26


class SpectralFilter(torch.autograd.Function):
    """A filter in the Fourier domain, a 1x1 convolution, and their sum.

    Spectra and filter are lists of frequencies (see :class:`HalfSpectrum`), so that
    the sum over channels is one matrix product per frequency; a spectrum of the input
    is kept for the backward pass. What comes before and after the products goes block
    by block, and only features and such spectra go through main memory. The filter is
    read where it lies, and its gradient written where it shall lie: both can be much
    larger than the features. So scales are applied to the spectra.

    The computation has the dtype of the filter, whatever that of the features.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        filter_: Tensor,
        scale: Tensor | None,
        gate: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        grid: HalfSpectrum,
    ) -> Tensor:
        """Filter ``x``.

        Args:
            ctx (Any): Context of autograd.
            x (Tensor): Feature (N, Ci, H, W).
            filter_ (Tensor): Coefficients (F, G, Ci / G, Co / G, 2), of the frequencies
                of ``grid``.
            scale (Tensor, optional): What to multiply coefficients with, (F,).
            gate (Tensor): What to multiply the filtered feature with, (1,).
            weight (Tensor, optional): Weight of the convolution, (Co, Ci, 1, 1).
            bias (Tensor, optional): Bias of the convolution, (Co,).
            grid (HalfSpectrum): The F frequencies, of a grid no larger than the
                feature.

        Returns:
            Tensor: Feature (N, Co, H, W) of the dtype of ``x``.
        """
        dtype = filter_.dtype
        n, channels, height, width = x.shape
        count, groups, fan_in, fan_out, _ = filter_.shape
        filters = torch.view_as_complex(filter_)
        spectrum = filters.new_empty(count, groups, n, fan_in)
        product = filters.new_empty(count, groups, n, fan_out)
        out_channels = groups * fan_out
        samples = _split(n, max(channels, out_channels) * height * width, x.device)
        for part in samples:
            _transform(x[part].to(dtype), spectrum[:, :, part], grid)
        for part in _split(count, 2 * product[0].numel(), x.device):
            torch.bmm(
                spectrum[part].flatten(0, 1),
                filters[part].flatten(0, 1),
                out=product[part].flatten(0, 1),
            )
            if scale is not None:
                _real(product[part]).mul_(scale[part, None, None, None])
        out = x.new_empty(n, out_channels, height, width)
        for part in samples:
            y = _transform_back(product[:, :, part], (height, width), grid).mul_(gate)
            if weight is not None and bias is not None:
                y += F.conv2d(x[part].to(dtype), weight)
                # Last, because it can be much larger than what the norm behind this
                # layer leaves: so only one rounding error is of its size.
                y += bias[:, None, None]
            out[part].copy_(y)
        ctx.samples, ctx.grid = samples, grid
        ctx.save_for_backward(x, spectrum, filter_, scale, gate, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors of ``forward`` but ``scale``."""
        x, spectrum, filter_, scale, gate, weight = ctx.saved_tensors
        dtype = filter_.dtype
        count, groups, _, fan_out, _ = filter_.shape
        filters = torch.view_as_complex(filter_)
        # Products are with conjugates: spectra are conjugated in place of filters.
        grads = filters.new_empty(count, groups, x.shape[0], fan_out)
        grad_spectrum = torch.empty_like(spectrum)
        grad_filter = torch.empty_like(filters)
        with torch.autocast(device_type=x.device.type, enabled=False):
            for part in ctx.samples:
                _transform(
                    grad[part].to(dtype), grads[:, :, part], ctx.grid, conjugate=True
                )
            # A frequency stands for its mirror image, too, unless it is its own.
            copies = filter_.new_full((count, 1, 1, 1), 2)
            for index in ctx.grid.own_mirror_images:
                copies[index] = 1
            copies *= gate
            for part in _split(count, 2 * spectrum[0].numel(), x.device):
                block, matrices = grads[part], grads[part].flatten(0, 1)
                if scale is not None:
                    _real(block).mul_(scale[part, None, None, None])
                torch.bmm(
                    matrices,
                    filters[part].flatten(0, 1).transpose(1, 2),
                    out=grad_spectrum[part].flatten(0, 1),
                )
                _real(block.conj_physical_()).mul_(copies[part])
                conjugate = torch.conj_physical(spectrum[part]).flatten(0, 1)
                torch.bmm(
                    conjugate.transpose(1, 2),
                    matrices,
                    out=grad_filter[part].flatten(0, 1),
                )
            grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            grad_gate = torch.zeros_like(gate)
            grad_weight = grad_bias = None
            if weight is not None:
                grad_weight = torch.zeros_like(weight)
                grad_bias = weight.new_zeros(weight.shape[0])
            for part in ctx.samples:
                real, g = x[part].to(dtype), grad[part].to(dtype)
                y = _transform_back(
                    grad_spectrum[:, :, part], x.shape[-2:], ctx.grid, conjugate=True
                )
                # The layer is linear, up to its bias, and the gate comes last in it.
                grad_gate += torch.dot(y.flatten(), real.flatten())
                y *= gate
                if weight is not None:
                    parts = torch.ops.aten.convolution_backward(
                        g,
                        real,
                        weight,
                        [weight.shape[0]],
                        [1, 1],
                        [0, 0],
                        [1, 1],
                        False,
                        [0, 0],
                        1,
                        [True, True, True],
                    )
                    y += parts[0]
                    grad_weight += parts[1]
                    grad_bias += parts[2]
                grad_x[part].copy_(y)
        grad_filter = torch.view_as_real(grad_filter)
        return grad_x, grad_filter, None, grad_gate, grad_weight, grad_bias, None


def plain_spectral_filter(
    x: Tensor,
    filter_: Tensor,
    scale: Tensor | None,
    gate: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    grid: HalfSpectrum,
) -> Tensor:
    """The function of SpectralFilter in operations that compilers trace and fuse.

    Args:
        x (Tensor): As in :meth:`SpectralFilter.forward`, and so are the others.
        filter_ (Tensor): See there.
        scale (Tensor, optional): See there.
        gate (Tensor): See there.
        weight (Tensor, optional): See there.
        bias (Tensor, optional): See there.
        grid (HalfSpectrum): See there.

    Returns:
        Tensor: Feature (N, Co, H, W) of the dtype of ``x``.
    """
    real = x.to(filter_.dtype)
    height, width = x.shape[-2:]
    groups = filter_.shape[1]
    filters = torch.view_as_complex(filter_)
    if scale is not None:
        filters = filters * scale[:, None, None, None]
    spectrum = torch.fft.rfft2(real, norm='ortho')[..., : grid.columns]
    rows = [spectrum[..., source, :] for _, source in _shared_rows(grid.rows, height)]
    grouped = torch.cat(rows, -2).unflatten(1, (groups, -1)).permute(3, 4, 1, 0, 2)
    product = (grouped @ grid.expand(filters)).permute(3, 2, 4, 0, 1).flatten(1, 2)
    if grid.rows < height:
        gap = (*product.shape[:2], height - grid.rows, grid.columns)
        (top, _), (bottom, _) = _shared_rows(grid.rows, height)
        parts = [product[..., top, :], product.new_zeros(gap), product[..., bottom, :]]
        product = torch.cat(parts, -2)
    y = torch.fft.irfft2(product, s=(height, width), norm='ortho') * gate
    if weight is not None and bias is not None:
        y = y + F.conv2d(real, weight) + bias[:, None, None]
    return y.to(x.dtype)


def _split(total: int, numel: int, device: torch.device) -> list[slice]:
    """Cut an axis, of which one step is ``numel`` numbers, into blocks."""
    block = _CPU_BLOCK if device.type == 'cpu' else _GPU_BLOCK
    most = max(1, min(total, block // max(1, numel)))
    count = -(-total // most)
    step = -(-total // count) if count else 1
    return [slice(start, start + step) for start in range(0, total, step)]


def _real(spectrum: Tensor) -> Tensor:
    """Real and imaginary parts next to each other, last two axes as one."""
    return torch.view_as_real(spectrum).flatten(-2)


def _transform(
    x: Tensor, out: Tensor, grid: HalfSpectrum, conjugate: bool = False
) -> None:
    """Write the frequencies of (N, C, H, W) to (F, G, N, C / G)."""
    spectrum = torch.fft.rfft2(x, norm='ortho').unflatten(1, (out.shape[1], -1))
    spectrum = spectrum.permute(3, 4, 1, 0, 2)
    if conjugate:
        spectrum = spectrum.conj()
    bulk, halves = grid.parts(out)
    for to, source in _shared_rows(grid.rows, x.shape[-2]):
        bulk[to].copy_(spectrum[source, grid.bulk_columns])
    for column, half in halves:
        half.copy_(spectrum[: len(half), column])


def _transform_back(
    spectrum: Tensor,
    size: tuple[int, int],
    grid: HalfSpectrum,
    conjugate: bool = False,
) -> Tensor:
    """The feature (N, C, H, W) of frequencies (F, G, N, C / G)."""
    _, groups, n, channels = spectrum.shape
    if conjugate:
        spectrum = spectrum.conj()
    create = spectrum.new_empty if grid.rows == size[0] else spectrum.new_zeros
    full = create(n, groups, channels, size[0], grid.columns)
    target = full.permute(3, 4, 1, 0, 2)
    bulk, halves = grid.parts(spectrum)
    for source, to in _shared_rows(grid.rows, size[0]):
        target[to, grid.bulk_columns].copy_(bulk[source])
    for column, half in halves:
        target[: len(half), column].copy_(half)
        mirrored = (grid.rows - 1) // 2
        target[size[0] - mirrored :, column].copy_(
            half[1 : mirrored + 1].flip(0).conj()
        )
        # The complex-to-real transform is undefined unless these are real, and
        # backends differ.
        for row in {0, size[0] // 2} if size[0] == 2 * (len(half) - 1) else {0}:
            torch.view_as_real(full)[..., row, column, 1] = 0
    # `s` also pads the columns that the filter lacks.
    return torch.fft.irfft2(full.flatten(1, 2), s=size, norm='ortho')


def _shared_rows(rows: int, height: int) -> list[tuple[slice, slice]]:
    """Where the rows of a filter lie in itself and in a spectrum of that height."""
    if rows == height:
        return [(slice(None), slice(None))]
    top = (rows + 1) // 2
    return [
        (slice(0, top), slice(0, top)),
        (slice(top, rows), slice(height - rows + top, height)),
    ]
