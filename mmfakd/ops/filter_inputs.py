# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a FrequencyAttention computes with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from .filter_storage import shared_grid
from .half_spectrum import HalfSpectrum


@dataclass(frozen=True)
class FilterForm:
    """What a filter is, beside what it learns.

    Attributes:
        size (tuple[int, int]): Height and width.
        high_pass (float): Cut-off as a fraction of the Nyquist frequency.
        copies (Tensor): Integers (F,), from :func:`~.filter_storage.count_copies`.
    """

    size: tuple[int, int]
    # What costs nothing is no part of what is compared.
    high_pass: float = field(compare=False)
    copies: Tensor = field(compare=False, repr=False)

    def __str__(self) -> str:
        return 'filter {}x{}'.format(*self.size)


class FilterInputs(NamedTuple):
    """The feature, what a layer has learned, in the dtype to compute in, and its form.

    Attributes:
        x (Tensor): Feature (N, Ci, H, W).
        filter (Tensor): The parameter (F, G, Ci / G, Co / G, 2).
        gate (Tensor): Factor of the filtered feature, (1,).
        weight (Tensor, optional): Weight of the 1x1 convolution, (Co, Ci, 1, 1).
        bias (Tensor, optional): Its bias, (Co,).
        gate_local (Tensor, optional): Factor of the convolution, (1,).
        form (FilterForm): What the filter is.
    """

    x: Tensor
    filter: Tensor
    gate: Tensor
    weight: Tensor | None
    bias: Tensor | None
    gate_local: Tensor | None
    form: FilterForm

    @property
    def size(self) -> tuple[int, int]:
        """tuple[int, int]: height and width of the feature."""
        height, width = self.x.shape[-2:]
        return height, width

    @property
    def grid(self) -> HalfSpectrum:
        """HalfSpectrum: the frequencies that filter and feature share."""
        return shared_grid(self.form.size, self.size)

    @property
    def joins(self) -> bool:
        """bool: whether a 1x1 convolution can join the filter.

        The filter must mix all channels, as that does, and pass all frequencies.
        """
        if self.weight is None or self.filter.shape[1] != 1:
            return False
        return self.grid == HalfSpectrum.whole(*self.size)
