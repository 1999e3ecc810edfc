# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The computation behind FrequencyAttention, with a backward pass of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .block_plan import BlockPlan
from .compiling import is_compiling, is_foreign
from .half_spectrum import HalfSpectrum
from .no_autocast import no_autocast
from .spectral_transform import transform, transform_back

# Numbers worked on at a time: what stays in a CPU's cache, and what keeps a GPU busy.
_CPU_BLOCK = 2**17
_GPU_BLOCK = 2**26

# Pixels worth a convolution of their own, which first has to rearrange its weights.
_PIXELS = 2**12

_USUAL = BlockPlan()

# No bias, stride, padding, dilation, no transposition, padding of the output, groups;
# which gradients are wanted.
CONV_1X1 = None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]


def spectral_filter(
    x: Tensor,
    filter_: Tensor,
    scale: Tensor | None,
    gate: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    grid: HalfSpectrum,
    plan: BlockPlan = _USUAL,
) -> Tensor:
    """Filter in the Fourier domain and add a 1x1 convolution.

    Computed as costs least: where filter and convolution can become one filter and
    that is cheaper, by that; block by block, or, under a compiler, in operations that
    it traces and fuses.

    Args:
        x (Tensor): Feature (N, Ci, H, W).
        filter_ (Tensor): Coefficients (F, G, Ci / G, Co / G, 2), of the frequencies
            of ``grid``.
        scale (Tensor, optional): What to multiply coefficients with, (F,).
        gate (Tensor): What to multiply the filtered feature with, (1,).
        weight (Tensor, optional): Weight of the convolution, (Co, Ci, 1, 1).
        bias (Tensor, optional): Bias of the convolution, (Co,).
        grid (HalfSpectrum): The F frequencies, of a grid no larger than the feature.
        plan (BlockPlan): How blocks are computed.

    Returns:
        Tensor: Feature (N, Co, H, W) of the dtype of ``x``.
    """
    plain = is_compiling() or is_foreign(x)
    compute = _plain_spectral_filter if plain else SpectralFilter.apply
    merge = merge_pays(filter_, x) if plan.merge is None else plan.merge
    size = x.shape[-2:]
    # A filter that takes up the convolution must mix all channels, as that does, and
    # pass all frequencies of the input.
    can_merge = filter_.shape[1] == 1 and grid == HalfSpectrum.whole(*size)
    if weight is None or not (can_merge and merge):
        return compute(x, filter_, scale, gate, weight, bias, grid, plan)
    filter_ = _merge(filter_, gate if scale is None else gate * scale, weight)
    if size == (1, 1):
        # The mean is all there is, and it is real.
        weight = filter_[0, 0, ..., 0].t()[..., None, None]
        return F.conv2d(x.to(filter_.dtype), weight, bias).to(x.dtype)
    return compute(x, filter_, None, None, None, bias, grid, plan)


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
        gate: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        grid: HalfSpectrum,
        plan: BlockPlan,
    ) -> Tensor:
        """Filter ``x``.

        Args:
            ctx (Any): Context of autograd.
            x (Tensor): Feature (N, Ci, H, W); for it and the others see
                :func:`spectral_filter`.
            filter_ (Tensor): Coefficients (F, G, Ci / G, Co / G, 2).
            scale (Tensor, optional): Factors of the coefficients, (F,).
            gate (Tensor, optional): Factor of the filtered feature, (1,).
            weight (Tensor, optional): Weight of the convolution, (Co, Ci, 1, 1).
            bias (Tensor, optional): Bias of the convolution, (Co,).
            grid (HalfSpectrum): The F frequencies.
            plan (BlockPlan): How blocks are computed.

        Returns:
            Tensor: Feature (N, Co, H, W) of the dtype of ``x``.
        """
        way, split = plan.transforms, partial(_split, plan, x.device)
        dtype = filter_.dtype
        n, channels, height, width = x.shape
        count, groups, fan_in, fan_out, _ = filter_.shape
        filters = torch.view_as_complex(filter_)
        spectrum = filters.new_empty(count, groups, n, fan_in)
        product = filters.new_empty(count, groups, n, fan_out)
        out_channels = groups * fan_out
        each = max(channels, out_channels)
        least = 0 if weight is None else _PIXELS * each
        samples = split(n, each * height * width, least)
        for part in samples:
            transform(x[part].to(dtype), spectrum[:, :, part], grid, way)
        for part in split(count, 2 * product[0].numel()):
            matrices = (z[part].flatten(0, 1) for z in (spectrum, filters, product))
            left, right, result = matrices
            torch.bmm(left, right, out=result)
            if scale is not None:
                _real(product[part]).mul_(scale[part, None, None, None])
        out = x.new_empty(n, out_channels, height, width)
        for part in samples:
            y = transform_back(product[:, :, part], (height, width), grid, way)
            if gate is not None:
                y *= gate
            if weight is not None:
                y += F.conv2d(x[part].to(dtype), weight)
            if bias is not None:
                # Last, because it can be much larger than what the norm behind this
                # layer leaves: so only one rounding error is of its size.
                y += bias[:, None, None]
            out[part].copy_(y)
        ctx.samples, ctx.grid, ctx.with_bias = samples, grid, bias is not None
        ctx.plan = plan
        ctx.save_for_backward(x, spectrum, filter_, scale, gate, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors of ``forward`` but ``scale``."""
        x, spectrum, filter_, scale, gate, weight = ctx.saved_tensors
        dtype, way = filter_.dtype, ctx.plan.transforms
        count, groups, fan_in, fan_out, _ = filter_.shape
        filters = torch.view_as_complex(filter_)
        # Products are with conjugates: spectra are conjugated in place of filters.
        grads = filters.new_empty(count, groups, x.shape[0], fan_out)
        # Blocks of gradients make room for each other where they can.
        grad_spectrum = grads if fan_in == fan_out else torch.empty_like(spectrum)
        grad_filter = torch.empty_like(filters)
        with no_autocast(x):
            for part in ctx.samples:
                transform(grad[part].to(dtype), grads[:, :, part], ctx.grid, way)
            # A frequency stands for its mirror image, too, unless it is its own.
            factor = ctx.grid.multiplicity(filter_).view(-1, 1, 1, 1, 1)
            if gate is not None:
                factor *= gate
            for part in _split(ctx.plan, x.device, count, 2 * spectrum[0].numel()):
                block, matrices = grads[part], grads[part].flatten(0, 1)
                if scale is not None:
                    _real(block).mul_(scale[part, None, None, None])
                conjugate = torch.conj_physical(spectrum[part]).flatten(0, 1)
                counted = torch.view_as_real(block) * factor[part]
                counted = torch.view_as_complex(counted).flatten(0, 1)
                result = grad_filter[part].flatten(0, 1)
                torch.bmm(conjugate.mT, counted, out=result)
                block.conj_physical_()
                product = torch.bmm(matrices, filters[part].flatten(0, 1).mT)
                product = product.view_as(spectrum[part])
                torch.conj_physical(product, out=grad_spectrum[part])
            grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            grad_gate = None if gate is None else torch.zeros_like(gate)
            grad_weight = None if weight is None else torch.zeros_like(weight)
            grad_bias = filter_.new_zeros(groups * fan_out) if ctx.with_bias else None
            for part in ctx.samples:
                block = grad_spectrum[:, :, part]
                y = transform_back(block, x.shape[-2:], ctx.grid, way)
                g = grad[part].to(dtype)
                if grad_gate is not None:
                    # The layer is linear up to its bias, and the gate comes last.
                    grad_gate += torch.dot(y.flatten(), x[part].to(dtype).flatten())
                    y *= gate
                if grad_weight is not None:
                    grad_local, grad_part, _ = torch.ops.aten.convolution_backward(
                        g, x[part].to(dtype), weight, *CONV_1X1
                    )
                    y += grad_local
                    grad_weight += grad_part
                if grad_bias is not None:
                    grad_bias += g.sum((0, 2, 3))
                grad_x[part].copy_(y)
        grad_filter = torch.view_as_real(grad_filter)
        grads_local = grad_gate, grad_weight, grad_bias
        return grad_x, grad_filter, None, *grads_local, None, None


def _plain_spectral_filter(x: Tensor, filter_: Tensor, *others: Any) -> Tensor:
    """The function of SpectralFilter in operations that compilers trace and fuse."""
    scale, gate, weight, bias, grid, _ = others
    real = x.to(filter_.dtype)
    height, width = x.shape[-2:]
    groups = filter_.shape[1]
    filters = torch.view_as_complex(filter_)
    if scale is not None:
        filters = filters * scale[:, None, None, None]
    spectrum = torch.fft.rfft2(real, norm='ortho')[..., : grid.columns]
    rows = [spectrum[..., source, :] for _, source in grid.shared_rows(height)]
    grouped = torch.cat(rows, -2).unflatten(1, (groups, -1)).permute(3, 4, 1, 0, 2)
    # Compilers fuse products of complex matrices; other devices may have none.
    multiply = torch.matmul if is_compiling() else _real_product
    product = multiply(grouped, grid.expand(filters))
    product = product.permute(3, 2, 4, 0, 1).flatten(1, 2)
    if grid.rows < height:
        gap = (*product.shape[:2], height - grid.rows, grid.columns)
        (top, _), (bottom, _) = grid.shared_rows(height)
        parts = [product[..., top, :], product.new_zeros(gap), product[..., bottom, :]]
        product = torch.cat(parts, -2)
    y = torch.fft.irfft2(product, s=(height, width), norm='ortho')
    if gate is not None:
        y = y * gate
    if weight is not None:
        y = y + F.conv2d(real, weight)
    if bias is not None:
        y = y + bias[:, None, None]
    return y.to(x.dtype)


def _real_product(left: Tensor, right: Tensor) -> Tensor:
    """A product of complex matrices by one of real ones, twice as large each way."""
    rows = torch.cat([left.real, left.imag], -1)
    real, imag = right.real, right.imag
    columns = torch.cat([torch.cat([real, imag], -1), torch.cat([-imag, real], -1)], -2)
    return torch.complex(*(rows @ columns).chunk(2, -1))


def _split(
    plan: BlockPlan, device: torch.device, total: int, each: int, least: int = 0
) -> list[slice]:
    """Cut an axis into equal blocks, by the numbers of one step.

    A block has as many numbers as suit the device, or ``least`` if that is more.
    """
    usual = _CPU_BLOCK if device.type == 'cpu' else _GPU_BLOCK
    block = max(least, plan.numbers or usual)
    most = max(1, min(total, block // max(1, each)))
    count = -(-total // most)
    step = -(-total // count) if count else 1
    return [slice(start, start + step) for start in range(0, total, step)]


def _real(spectrum: Tensor) -> Tensor:
    """Real and imaginary parts next to each other, last two axes as one."""
    return torch.view_as_real(spectrum).flatten(-2)


def merge_pays(filter_: Tensor, x: Tensor) -> bool:
    """Tell whether to pass over the filter some times instead of over the feature.

    Args:
        filter_ (Tensor): The filter.
        x (Tensor): The feature.

    Returns:
        bool: Whether the convolution is to join the filter.
    """
    return filter_.numel() <= 2 * x.numel()


def _merge(filter_: Tensor, factor: Tensor, weight: Tensor) -> Tensor:
    """Coefficients (F, 1, Ci, Co, 2) of both branches together.

    To the Fourier domain the local branch is a filter that is the same everywhere.
    """
    local = weight.flatten(1).t()
    local = torch.stack([local, torch.zeros_like(local)], -1)
    return torch.addcmul(local, filter_, factor.view(-1, 1, 1, 1, 1))
