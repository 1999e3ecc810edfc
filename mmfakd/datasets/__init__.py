# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Datasets that mmpretrain and mmdet lack."""

from .cifar100 import CIFAR100
from .collate_views import collate_views
from .contrastive_samples import ContrastiveSamples
from .digits import Digits
from .image_arrays import ImageArrays
from .unlabelled_images import UnlabelledImages

__all__ = [
    'CIFAR100',
    'ContrastiveSamples',
    'Digits',
    'ImageArrays',
    'UnlabelledImages',
    'collate_views',
]
