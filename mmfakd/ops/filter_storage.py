# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How a full complex filter is stored in one real parameter.

What is stored and why, :class:`~mmfakd.models.layers.FrequencyAttention` says under
"Storage".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .half_spectrum import HalfSpectrum


def pack_filter(weight: Tensor, high_pass: float = 0.1, groups: int = 1) -> Tensor:
    """Convert a full complex filter to the parameter of FrequencyAttention.

    The layer then computes what the full filter computes between full complex
    transforms, and SGD moves it alike. Linear and differentiable: its adjoint maps
    gradients of the parameter to gradients of the full filter.

    Source: derived for this package from the published implementation of arXiv
    2403.05894, see "Storage" in :class:`~mmfakd.models.layers.FrequencyAttention`.

    Args:
        weight (Tensor): Complex, of shape (Ci / groups, Co, H, W), frequencies in
            the order of ``torch.fft.fft2``.
        high_pass (float): Cut-off as a fraction of the Nyquist frequency. Defaults to
            0.1.
        groups (int): Groups of channels that are filtered apart. Defaults to 1.

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
    size = height, width = weight.shape[-2:]
    whole = HalfSpectrum.whole(height, width)
    mask = _high_pass_mask(size, high_pass).to(weight.device)
    copies = count_copies(size, high_pass).to(weight.device)
    # Where no copy is left the coefficient is 0, and so is the parameter.
    scale = filter_scale(copies, weight.real.dtype).clamp_min(0.5)

    half = weight[..., : whole.columns].movedim((-2, -1), (0, 1))
    masked = (weight * mask).movedim((-2, -1), (0, 1))
    compact = whole.compact(_with_mirror_image(masked)) / 2 / scale[:, None, None]
    own = whole.multiplicity(copies) == 1
    compact = torch.where(own[:, None, None], whole.compact(half), compact)
    compact = compact.unflatten(2, (groups, -1)).transpose(1, 2)
    return torch.view_as_real(compact.resolve_conj().contiguous())


def draw_filter(
    in_channels: int, out_channels: int, size: Sequence[int], groups: int
) -> Tensor:
    """Draw a full filter as published: U[0, 1) / (Ci Co), counted within a group.

    Args:
        in_channels (int): Channels Ci of the input.
        out_channels (int): Channels Co of the output.
        size (Sequence[int]): Height and width.
        groups (int): Groups of channels that are filtered apart.

    Returns:
        Tensor: Complex, of shape (Ci / groups, Co, H, W).
    """
    fan = in_channels // groups, out_channels // groups
    weight = torch.rand(fan[0], out_channels, *size, 2) / (fan[0] * fan[1])
    return torch.view_as_complex(weight)


def count_copies(size: Sequence[int], high_pass: float) -> Tensor:
    """Count the copies of each coefficient that the mask leaves in the full filter.

    Args:
        size (Sequence[int]): Height and width.
        high_pass (float): Cut-off as a fraction of the Nyquist frequency.

    Returns:
        Tensor: Integers m (F,), the number of copies: 0, 1 or 2. A frequency that is
        its own mirror image has one copy, which counts as four, see
        :func:`filter_scale`.
    """
    both = _with_mirror_image(_high_pass_mask(size, high_pass).to(torch.uint8))
    whole = HalfSpectrum.whole(*size)
    copies = whole.compact(both)
    return 2 * copies // whole.multiplicity(copies)


def filter_scale(copies: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the constants c = sqrt(m) / 2 that turn the parameter into coefficients.

    Args:
        copies (Tensor): Integers m (F,), from :func:`count_copies`.
        dtype (torch.dtype): Dtype to compute in.

    Returns:
        Tensor: Shape (F,).
    """
    return copies.to(dtype).sqrt() / 2


def unpack_filter(filter_: Tensor, copies: Tensor, size: Sequence[int]) -> Tensor:
    """Compute the coefficients that a half spectrum is multiplied with.

    Args:
        filter_ (Tensor): The parameter (F, G, Ci / G, Co / G, 2).
        copies (Tensor): Integers m (F,), from :func:`count_copies`.
        size (Sequence[int]): Height and width of the filter.

    Returns:
        Tensor: Complex, of shape (H, W // 2 + 1, G, Ci / G, Co / G).
    """
    scale = filter_scale(copies, filter_.dtype)[:, None, None, None]
    return HalfSpectrum.whole(*size).expand(torch.view_as_complex(filter_) * scale)


def fit_filter(
    filter_: Tensor, copies: Tensor, size: Sequence[int], input_size: Sequence[int]
) -> tuple[Tensor, Tensor | None, HalfSpectrum]:
    """Choose the coefficients of the frequencies that a filter shares with an input.

    Args:
        filter_ (Tensor): The parameter (F, G, Ci / G, Co / G, 2).
        copies (Tensor): Integers m (F,), from :func:`count_copies`.
        size (Sequence[int]): Height and width of the filter.
        input_size (Sequence[int]): Those of the input.

    Returns:
        tuple[Tensor, Tensor | None, HalfSpectrum]: Coefficients, what remains to
        multiply them with, and their frequencies, as
        :func:`~mmfakd.ops.spectral_filter.spectral_filter` takes them.
    """
    if tuple(input_size) == tuple(size):
        scale = filter_scale(copies, filter_.dtype)
        return filter_, scale, HalfSpectrum.whole(*size)
    half = unpack_filter(filter_, copies, size)
    half, grid = shared_frequencies(half, size, input_size)
    return torch.view_as_real(grid.compact(half).resolve_conj()), None, grid


def shared_frequencies(
    half: Tensor, size: Sequence[int], input_size: Sequence[int]
) -> tuple[Tensor, HalfSpectrum]:
    """Cut the frequencies that an input lacks from a half spectrum.

    Args:
        half (Tensor): Shape (H, W // 2 + 1, ...).
        size (Sequence[int]): Height H and width W.
        input_size (Sequence[int]): Those of the input.

    Returns:
        tuple[Tensor, HalfSpectrum]: The frequencies that both have, (R, columns, ...),
        and which these are.
    """
    grid = shared_grid(size, input_size)
    if tuple(input_size) == tuple(size):
        return half, grid
    # A filter row of frequency n / 2 (the Nyquist row of an even n) serves +n / 2 and
    # -n / 2 of a taller input.
    top, bottom = (grid.rows + 1) // 2, grid.rows // 2
    rows = [half[:top, : grid.columns], half[len(half) - bottom :, : grid.columns]]
    return torch.cat(rows), grid


def shared_grid(size: Sequence[int], input_size: Sequence[int]) -> HalfSpectrum:
    """Find the frequencies that a filter shares with an input.

    Args:
        size (Sequence[int]): Height and width of the filter.
        input_size (Sequence[int]): Those of the input.

    Returns:
        HalfSpectrum: Rows 0 to n / 2 and -1 to -n / 2, as far as both have them, and
        columns alike.
    """
    (height, width), (rows, columns) = input_size, size
    if (height, width) == (rows, columns):
        return HalfSpectrum.whole(height, width)
    top = min((height + 1) // 2, rows // 2 + 1)
    bottom = min(height // 2, rows // 2)
    return HalfSpectrum(top + bottom, min(width // 2, columns // 2) + 1, width)


def _high_pass_mask(size: Sequence[int], high_pass: float) -> Tensor:
    """Booleans (H, W) in the order of fft2, False where the published mask cuts."""

    def cut(n: int) -> Tensor:
        frequency = torch.arange(n)
        frequency[(n + 1) // 2 :] -= n
        reach = int(high_pass * (n // 2))
        return (-reach <= frequency) & (frequency < reach)

    rows, columns = map(cut, size)
    return ~(rows[:, None] & columns)


def _with_mirror_image(full: Tensor) -> Tensor:
    """Add the conjugate at -k of (H, W, ...) to each k of (H, W // 2 + 1, ...)."""
    height, width = full.shape[:2]
    rows = -torch.arange(height, device=full.device) % height
    columns = -torch.arange(width // 2 + 1, device=full.device) % width
    return full[:, : width // 2 + 1] + full[rows[:, None], columns].conj()
