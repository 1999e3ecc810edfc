# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""How SpectralFilter cuts its work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockPlan:
    """How SpectralFilter cuts its work; None is what is usually the fastest.

    Attributes:
        numbers (int, optional): Numbers worked on at a time.
        merge (bool, optional): Whether the convolution joins the filter where it can.
        transforms (str, optional): One of ``spectral_transform.WAYS``.
    """

    numbers: int | None = None
    merge: bool | None = None
    transforms: str | None = None
