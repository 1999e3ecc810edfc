# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distance of feature spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmfakd.ops.maps import as_map
from mmfakd.ops.no_autocast import no_autocast
from mmfakd.registry import MODELS

from .check_number import check_number
from .feature_pairs import Features, feature_pairs
from .mean_over import IMAGES, PIXELS

_DOMAINS = ('complex', 'amplitude', 'phase', 'log_amplitude')

# The largest frequency of a pixel grid, in a corner of the spectrum.
_HIGHEST = 0.5**0.5

# Far above the rounding of frequencies, far below the gap between two of them.
_ROUNDING = 1e-7

# Below this amplitude a coefficient's phase fades out, instead of jumping about.
_PHASE_FLOOR = 1e-3


def fft_feature_loss(
    s_feature: Features,
    t_feature: Features,
    domain: str = 'complex',
    band: Sequence[float] | None = None,
    focal_alpha: float = 0.0,
) -> Tensor:
    r"""Mean squared distance between the spectra of two features.

    .. math::
        L = \frac{1}{N C H W} \sum_{n, c, k} B(k) \, w_{nc}(k) \,
        \big| \phi(\hat{S}_{nc}(k)) - \phi(\hat{T}_{nc}(k)) \big|^2

    with orthonormal Fourier transforms :math:`\hat{S}, \hat{T}` and :math:`\phi(z)`

    - ``complex``: :math:`z`; with neither band nor focal weight this is the mean
      squared error of the features themselves (Parseval);
    - ``amplitude``: :math:`|z|`, blind to shifts;
    - ``phase``: :math:`z / \sqrt{|z|^2 + 10^{-6}}`, blind to contrast; the distance
      is :math:`2 - 2 \cos` of the angle between the two. Coefficients of amplitude
      well below :math:`10^{-3}` have hardly any phase, which keeps gradients finite;
    - ``log_amplitude``: :math:`\log(1 + |z|)`, weak coefficients count more.

    :math:`B` is 1 for frequencies in the band, else 0. The mean runs over all
    frequencies, so that without a focal weight the losses of adjoining bands add up to
    the whole one. :math:`w = (d / \max_{B(k) = 1} d)^\alpha`, with :math:`d` the
    distance (not squared) and without gradient, is the weight of the focal frequency
    loss. Its maximum is that of the band.

    Sources: *Focal Frequency Loss for Image Reconstruction and Synthesis*, ICCV 2021
    (arXiv 2012.12821), for the focal weight; the spectra of features as a target
    follow *Frequency Attention for Knowledge Distillation* (arXiv 2403.05894).

    Args:
        s_feature (Tensor | Sequence[Tensor]): Feature, or one for each level, of the
            student: (N, C, H, W) or (N, C).
        t_feature (Tensor | Sequence[Tensor]): The same of the teacher.
        domain (str): ``complex``, ``amplitude``, ``phase`` or ``log_amplitude``.
            Defaults to ``complex``.
        band (tuple[float, float], optional): Frequencies low <= f < high that count,
            in cycles per pixel, from the centre of the spectrum, 0, to its corners,
            0.707. A feature without any such frequency (1 x 1 has only 0)
            contributes 0. None is all of them. Defaults to None.
        focal_alpha (float): Exponent of the focal weight; 0 is no weight.
            Defaults to 0.0.

    Returns:
        Tensor: Scalar, summed over levels; float32, or float64 for such features.

    Raises:
        TypeError: If a feature is complex or integer.
        ValueError: For an unknown domain, a bad band or a negative exponent; if the
            numbers of levels or the shapes differ.
    """
    _check(domain, band, focal_alpha)
    losses = [
        _level_loss(student, teacher, domain, band, focal_alpha)
        for student, teacher in feature_pairs('FFTFeatureLoss', s_feature, t_feature)
    ]
    return torch.stack(losses).sum()


@MODELS.register_module()
class FFTFeatureLoss(nn.Module):
    """Distance of feature spectra, see :func:`fft_feature_loss`.

    Sources: *Focal Frequency Loss for Image Reconstruction and Synthesis*, ICCV 2021
    (arXiv 2012.12821), for the focal weight; the spectra of features as a target
    follow *Frequency Attention for Knowledge Distillation* (arXiv 2403.05894).

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        domain (str): ``complex``, ``amplitude``, ``phase`` or ``log_amplitude``.
            Defaults to ``complex``.
        band (tuple[float, float], optional): Frequencies that count, in cycles per
            pixel. Defaults to None, for all of them.
        focal_alpha (float): Exponent of the focal weight. Defaults to 0.0, for none.

    Shapes:
        - s_feature, t_feature: (N, C, H, W) or (N, C), or a sequence of them.
        - Output: scalar.

    Raises:
        TypeError: In ``forward`` if a feature is complex or integer.
        ValueError: At construction for a negative weight or exponent, an unknown
            domain or a bad band; in ``forward`` if the numbers of levels or the shapes
            differ, or the first maps have no frequency of the band.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        domain: str = 'complex',
        band: Sequence[float] | None = None,
        focal_alpha: float = 0.0,
    ) -> None:
        super().__init__()
        check_number('FFTFeatureLoss', 'loss_weight', loss_weight)
        _check(domain, band, focal_alpha)
        self.loss_weight = loss_weight
        self.domain = domain
        self.band = band
        self.focal_alpha = focal_alpha
        # Whether a map had frequencies of the band so far.
        self._has_met_band = band is None

    @property
    def mean_over(self) -> str:
        """What it is a mean over, see :func:`.mean_over.mean_over` (str)."""
        # Of all frequencies alike (Parseval); others depend on the size of the map.
        alike = self.domain == 'complex' and self.band is None and not self.focal_alpha
        return PIXELS if alike else IMAGES

    def forward(self, s_feature: Features, t_feature: Features) -> Tensor:
        """Compute the weighted loss.

        Args:
            s_feature (Tensor | Sequence[Tensor]): The student's features.
            t_feature (Tensor | Sequence[Tensor]): The teacher's features.

        Returns:
            Tensor: Scalar.

        Raises:
            TypeError: If a feature is complex or integer.
            ValueError: If the numbers of levels or the shapes differ, or the first maps
                have no frequency of the band. Later ones may be too small, where sizes
                vary, and a single pixel always may: these contribute 0.
        """
        loss = fft_feature_loss(
            s_feature, t_feature, self.domain, self.band, self.focal_alpha
        )
        if not self._has_met_band:
            self._meet_band(s_feature)
        return self.loss_weight * loss

    def _meet_band(self, features: Features) -> None:
        """Refuse a band that no map has a frequency of: nothing would be learned."""
        maps = [features] if isinstance(features, Tensor) else features
        sizes = [tuple(as_map(feature).shape[-2:]) for feature in maps]
        assert self.band is not None
        found = {size: _frequencies(*size) for size in sizes}
        if any(within_band(f, self.band) for each in found.values() for f in each):
            self._has_met_band = True
            return
        size = max(sizes, key=math.prod)
        if size == (1, 1):
            return
        listed = ', '.join(f'{f:.3g}' for f in found[size][:6])
        more = ', ...' if len(found[size]) > 6 else ''
        raise ValueError(
            f'FFTFeatureLoss got band={self.band!r}, but a map of {size[0]} x {size[1]}'
            f' pixels has no frequency in it, so the loss would always be 0. It has '
            f'{listed}{more} cycles per pixel. Widen the band to one of these, or take '
            'a layer with larger maps.'
        )


def _frequencies(height: int, width: int) -> list[float]:
    """The frequencies of a grid, from the lowest to the highest."""
    rows, columns = ([i / n for i in range(n // 2 + 1)] for n in (height, width))
    return sorted({math.hypot(r, c) for r in rows for c in columns})


def within_band(frequency: Any, band: Sequence[float]) -> Any:
    """Tell whether a frequency is in a band, its lower edge included.

    A frequency that is an edge counts as the edge, however either was rounded.

    Args:
        frequency (float | Tensor): In cycles per pixel, of any shape; float64.
        band (Sequence[float]): Lower and upper edge.

    Returns:
        bool | Tensor: Whether it is, of the shape of ``frequency``.
    """
    low, high = (edge - _ROUNDING for edge in band)
    return (low <= frequency) & (frequency < high)


def _check(domain: str, band: Sequence[float] | None, focal_alpha: float) -> None:
    """Raise for arguments out of range."""
    if domain not in _DOMAINS:
        raise ValueError(
            f'FFTFeatureLoss got domain={domain!r}, expected one of '
            f'{", ".join(map(repr, _DOMAINS))}.'
        )
    if band is not None and not _is_band(band):
        raise ValueError(
            f'FFTFeatureLoss got band={band!r}, expected two frequencies (low, high) '
            f'in cycles per pixel with 0 <= low < high and low <= {_HIGHEST:.4f}, the '
            'highest frequency of a pixel grid; None is no band.'
        )
    check_number('FFTFeatureLoss', 'focal_alpha', focal_alpha)


def _is_band(band: object) -> bool:
    """Whether these are two frequencies, not above the grid's highest."""
    if not isinstance(band, (list, tuple)) or len(band) != 2:
        return False
    low, high = band
    numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
    return numbers and 0 <= low < high and low <= _HIGHEST


def _level_loss(
    student: Tensor,
    teacher: Tensor,
    domain: str,
    band: Sequence[float] | None,
    focal_alpha: float,
) -> Tensor:
    """Loss of one pair (N, C, H, W)."""
    with no_autocast(student):
        # Features are real: half of the spectrum holds everything.
        student_spectrum = torch.fft.rfft2(student, norm='ortho')
        teacher_spectrum = torch.fft.rfft2(teacher, norm='ortho')
        power = _power(
            _represent(student_spectrum, domain) - _represent(teacher_spectrum, domain)
        )
        height, width = student.shape[-2:]
        weight = _bin_weight(height, width, band, power)
        if focal_alpha > 0:
            focus = power.detach() * (weight > 0)
            peak = focus.amax((-2, -1), keepdim=True)
            tiny = torch.finfo(peak.dtype).tiny
            weight = weight * (focus / peak.clamp_min(tiny)) ** (focal_alpha / 2)
        return (weight * power).sum() / student.numel()


def _represent(spectrum: Tensor, domain: str) -> Tensor:
    """What of a spectrum is compared."""
    if domain == 'complex':
        return spectrum
    if domain == 'amplitude':
        return spectrum.abs()
    if domain == 'log_amplitude':
        return spectrum.abs().log1p()
    return spectrum * (_power(spectrum) + _PHASE_FLOOR**2).rsqrt()


def _power(z: Tensor) -> Tensor:
    """Squared absolute value, without the square root's gradient at zero."""
    return torch.view_as_real(z).square().sum(-1) if z.is_complex() else z.square()


def _bin_weight(
    height: int, width: int, band: Sequence[float] | None, like: Tensor
) -> Tensor:
    """How many bins of the full spectrum a bin (H, W // 2 + 1) stands for."""
    # Not every version of torch has all of this on mps.
    device = torch.device('cpu') if like.device.type == 'mps' else like.device
    column = torch.arange(width // 2 + 1, device=device)
    own_mirror = (column == 0) | (2 * column == width)
    weight = (2 - own_mirror.to(like.dtype)).expand(height, -1)
    if band is not None:
        double = torch.float64
        row_frequency = torch.fft.fftfreq(height, dtype=double, device=device)
        column_frequency = torch.fft.rfftfreq(width, dtype=double, device=device)
        frequency = torch.hypot(row_frequency[:, None], column_frequency[None])
        weight = weight * within_band(frequency, band)
    return weight.to(like.device)
