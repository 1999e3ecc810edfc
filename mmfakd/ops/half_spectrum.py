# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The frequencies of a real feature, each independent one once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HalfSpectrum:
    """Frequencies that determine the spectrum of real features.

    The spectrum of a real feature is Hermitian: a coefficient at -k is the conjugate of
    that at k. Of the columns 0 to W // 2 of ``rfft2``, the bulk has its mirror image
    outside, in the negative columns. Column 0, and for even W the Nyquist column W / 2,
    hold their own: of them the rows 0 to R // 2 suffice. In a list of the F frequencies
    the bulk comes first, row by row, then these two halves.

    Args:
        rows (int): Rows R, of the frequencies 0, 1, .. and, from the end, -1, -2, ..
        columns (int): Columns, of the frequencies 0, 1, ..
        width (int): Width W, in pixels, of the features.
    """

    rows: int
    columns: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> HalfSpectrum:
        """List all frequencies of a size.

        Args:
            height (int): Height in pixels.
            width (int): Width in pixels.

        Returns:
            HalfSpectrum: The frequencies that ``rfft2`` yields.
        """
        return cls(height, width // 2 + 1, width)

    @property
    def own_columns(self) -> tuple[int, ...]:
        """tuple[int, ...]: columns that are their own mirror image."""
        last = self.columns - 1
        return (0, last) if 2 * last == self.width else (0,)

    @property
    def bulk_columns(self) -> slice:
        """slice: the other columns."""
        return slice(1, self.columns - len(self.own_columns) + 1)

    @property
    def half_rows(self) -> int:
        """int: rows that suffice of a column that is its own mirror image."""
        return self.rows // 2 + 1

    @property
    def own_mirror_images(self) -> list[int]:
        """list[int]: frequencies whose mirror image they are, in the list of all."""
        half = self.half_rows
        bulk = self.rows * (self.columns - len(self.own_columns))
        # Row R / 2 of an even R, too.
        rows = {0, half - 1} if self.rows % 2 == 0 else {0}
        return [
            bulk + i * half + row for i in range(len(self.own_columns)) for row in rows
        ]

    def multiplicity(self, like: Tensor) -> Tensor:
        """Count the frequencies of the full spectrum that each stands for.

        Args:
            like (Tensor): Shape (F, ...), for dtype and device.

        Returns:
            Tensor: Shape (F,): 2, itself and its mirror image, or 1 where it is both.
        """
        multiplicity = like.new_full((len(like),), 2)
        # One by one: a list of places would have to go to the device first.
        for place in self.own_mirror_images:
            multiplicity[place] = 1
        return multiplicity

    def shared_rows(self, height: int) -> list[tuple[slice, slice]]:
        """Find the rows in a spectrum that may be taller.

        Args:
            height (int): Rows of that spectrum, at least as many.

        Returns:
            list[tuple[slice, slice]]: Rows here and the same ones there.
        """
        if self.rows == height:
            return [(slice(None), slice(None))]
        top = (self.rows + 1) // 2
        return [
            (slice(0, top), slice(0, top)),
            (slice(top, self.rows), slice(height - self.rows + top, height)),
        ]

    def parts(self, compact: Tensor) -> tuple[Tensor, Tensor]:
        """View a list of frequencies as bulk and half columns.

        Args:
            compact (Tensor): Shape (F, ...).

        Returns:
            tuple[Tensor, Tensor]: The bulk (R, columns, ...), and the first halves of
            the columns that are their own mirror image, (columns, R // 2 + 1, ...).
        """
        own = len(self.own_columns)
        count = self.columns - own
        bulk, halves = compact.split([self.rows * count, self.half_rows * own])
        shapes = (self.rows, count), (own, self.half_rows)
        return bulk.unflatten(0, shapes[0]), halves.unflatten(0, shapes[1])

    def compact(self, half: Tensor) -> Tensor:
        """List the frequencies of a half spectrum.

        Args:
            half (Tensor): Shape (R, columns, ...), as of ``rfft2``.

        Returns:
            Tensor: Shape (F, ...).
        """
        halves = [half[: self.half_rows, column] for column in self.own_columns]
        return torch.cat([half[:, self.bulk_columns].flatten(0, 1), *halves])

    def expand(self, compact: Tensor) -> Tensor:
        """Undo :meth:`compact`.

        Args:
            compact (Tensor): Complex, of shape (F, ...).

        Returns:
            Tensor: Half spectrum (R, columns, ...) that is Hermitian over the rows of
            the columns that are their own mirror image.
        """
        bulk, halves = self.parts(compact)
        mirrored = (self.rows - 1) // 2
        columns = []
        for half in halves:
            rows = half[1 : mirrored + 1]
            # Row R / 2 of an even R is real, too.
            first, middle = half[:1].real + 0j, half[mirrored + 1 :].real + 0j
            column = _join([first, rows, middle, rows.flip(0).conj()])
            columns.append(column[:, None])
        return _join([columns[0], bulk, *columns[1:]], dim=1)


def _join(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Concatenate what is not empty, which a compiler has no code for."""
    return torch.cat([tensor for tensor in tensors if tensor.numel()], dim)
