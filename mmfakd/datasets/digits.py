# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Handwritten digits that come with scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmfakd.registry import DATASETS

_SPLIT_SEED = 0
_TEST_PER_CLASS = 50


@DATASETS.register_module()
class Digits(BaseDataset):
    """The 1,797 real handwritten digits bundled with scikit-learn.

    Small grey images (8 x 8, 16 levels) that need no download: a data set to learn
    and test a method on within minutes. The split is fixed and stratified: of each
    class 50 images, drawn with seed 0, are for testing (500 in all), the other 1,297
    for training; ``labels_per_class`` keeps only the first of these in a drawn order,
    so that a smaller set is part of every larger one.

    Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*,
    UCI Machine Learning Repository, 1998 (its test part), as shipped by
    ``sklearn.datasets.load_digits``.

    Args:
        split (str): ``'train'`` or ``'test'``. Defaults to ``'train'``.
        labels_per_class (int, optional): Training images of each class; None for
            all. Defaults to None.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``. Into its ``pipeline``
            an image enters as ``img``, a uint8 array of shape (8, 8, 1) with values 0
            to 255, and its class as ``gt_label``.

    Raises:
        ValueError: For an unknown split, or a number of labels that is not there.
        ImportError: If scikit-learn is missing.
    """

    METAINFO = {'classes': tuple('0123456789')}

    def __init__(
        self,
        split: str = 'train',
        labels_per_class: int | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f"split={split!r}; expected 'train' or 'test'.")
        if labels_per_class is not None and split == 'test':
            raise ValueError(
                f'labels_per_class={labels_per_class} with the test split; it is only '
                'for training.'
            )
        self.split = split
        self.labels_per_class = labels_per_class
        # So few small images need not be pickled for the workers to share.
        kwargs.setdefault('serialize_data', False)
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the images of the split.

        Returns:
            list[dict]: ``img`` (8, 8, 1) uint8 and ``gt_label``, by rising index of
            scikit-learn's order.
        """
        pixels, labels = _read_digits()
        # 16 is white in the source; 255 is what image transforms expect.
        images = np.round(pixels * (255 / 16)).astype(np.uint8)[..., None]
        rng = np.random.RandomState(_SPLIT_SEED)
        chosen: list[int] = []
        for label in range(10):
            order = rng.permutation(np.flatnonzero(labels == label))
            train = order[_TEST_PER_CLASS:]
            wanted = self.labels_per_class
            if wanted is not None and not 0 < wanted <= len(train):
                raise ValueError(
                    f'labels_per_class={wanted}: class {label} has {len(train)} '
                    'training images; give a number from 1 to that.'
                )
            part = order[:_TEST_PER_CLASS] if self.split == 'test' else train[:wanted]
            chosen += part.tolist()
        return [dict(img=images[i], gt_label=int(labels[i])) for i in sorted(chosen)]

    def extra_repr(self) -> list[str]:
        """Describe the split.

        Returns:
            list[str]: Lines for ``repr``.
        """
        labels = self.labels_per_class
        return [f'Split: \t{self.split}', f'Labels per class: \t{labels}']


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read pixels (1797, 8, 8), 0 to 16, and labels (1797,) as ``load_digits`` does.

    An import of scikit-learn takes a third of the time in which a command starts, so
    its file is read without, where it lies as ever.
    """
    spec = find_spec('sklearn')
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / 'datasets/data/digits.csv.gz'
        if file.is_file():
            table = np.loadtxt(file, delimiter=',')
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target
