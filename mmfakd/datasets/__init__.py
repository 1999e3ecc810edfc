# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Datasets that mmpretrain and mmdet lack."""

from .digits import Digits

__all__ = ['Digits']
