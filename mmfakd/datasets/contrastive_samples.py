# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A data set whose items also name samples of other classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.structures import BaseDataElement

from mmfakd.registry import DATASETS


@DATASETS.register_module()
class ContrastiveSamples:
    """Adds to every item the samples that it is to be contrasted with.

    The data sample of item i gains

    - ``sample_idx``: i, a scalar tensor (instead of the meta information of that
      name); where image i cannot be read, the number of the one that MMEngine takes
      in its place;
    - ``contrast_sample_idxs``: i and the numbers of ``num_negatives`` samples of other
      classes, an int32 tensor of shape (1 + num_negatives,). They are drawn anew each
      time, uniformly and without replacement; with replacement where there are fewer;
    - ``num_samples``: the length of the data set, as meta information.

    That is what :class:`~mmfakd.models.losses.CRDLoss` asks for. Everything else is
    the wrapped data set's. Numbers are drawn from NumPy's global state, so the seeds
    of data workers and ``EpochSeedHook`` hold for them.

    Source: *Contrastive Representation Distillation*, ICLR 2020 (arXiv 1910.10699),
    with one positive, the sample itself.

    Args:
        dataset (BaseDataset | dict): A data set with one class an image, of any class
            sizes, or its config. Its pipeline ends in mmpretrain's ``PackInputs``.
        num_negatives (int): Negatives of each item, the loss's ``neg_num``. Defaults
            to 16384.
        lazy_init (bool): Whether to read the classes on first use only. Defaults to
            False.

    Raises:
        ValueError: If ``num_negatives`` is not positive, an image has not exactly one
            class, all images have the same, or an item is of another class than its
            number.
        TypeError: If an item has no data sample.
    """

    def __init__(
        self,
        dataset: BaseDataset | dict,
        num_negatives: int = 16384,
        lazy_init: bool = False,
    ) -> None:
        if num_negatives < 1:
            raise ValueError(
                f'ContrastiveSamples got num_negatives={num_negatives}, expected a '
                "positive whole number, as the loss's `neg_num`."
            )
        if isinstance(dataset, dict):
            dataset = ROOT_DATASETS.build(dataset)
        self.dataset = dataset
        self.num_negatives = num_negatives
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """dict: the meta information of the wrapped data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Initialise the wrapped data set and read the classes of its images.

        Raises:
            ValueError: If an image has not exactly one class, or all have the same.
        """
        if self._fully_initialized:
            return
        self.dataset.full_init()
        labels = [self._read_label(i) for i in range(len(self.dataset))]
        self._labels = labels
        classes, self._classes, self._sizes = np.unique(
            labels, return_inverse=True, return_counts=True
        )
        if len(classes) < 2:
            raise ValueError(
                f'ContrastiveSamples: all {len(labels)} images have the class '
                f'{classes.tolist()}, so there are no negatives; give a data set of '
                'two classes or more.'
            )
        # In this order every class is one block: the negatives are all but a block.
        # int32 halves the megabytes that the workers send for every batch.
        self._order = np.argsort(self._classes, kind='stable').astype(np.int32)
        self._ends = np.cumsum(self._sizes)
        self._fully_initialized = True

    def _read_label(self, idx: int) -> int:
        label = self.dataset.get_data_info(idx).get('gt_label')
        if np.ndim(label) != 0 or label is None:
            raise ValueError(
                f'ContrastiveSamples: `gt_label` of image {idx} is {label!r}; expected '
                'one whole number, the class.'
            )
        return int(label)

    @force_full_init
    def __len__(self) -> int:
        return len(self._classes)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Look up one image of the wrapped data set.

        Args:
            idx (int): Its number.

        Returns:
            dict: What the wrapped data set knows of it.
        """
        return self.dataset.get_data_info(idx)

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Look up the class of one image.

        Args:
            idx (int): Its number.

        Returns:
            list[int]: Its class.
        """
        return [self._read_label(idx)]

    @force_full_init
    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.dataset[idx]
        sample: Any = item.get('data_samples') if isinstance(item, dict) else None
        if not isinstance(sample, BaseDataElement):
            raise TypeError(
                f'ContrastiveSamples: item {idx} of {type(self.dataset).__name__} has '
                "no data sample; end its `pipeline` in dict(type='PackInputs')."
            )
        idx = self._fetched(idx % len(self), sample)
        # PackInputs made it meta information, which no field may be named as.
        sample.pop('sample_idx', None)
        sample.set_field(torch.tensor(idx), 'sample_idx')
        sample.set_field(torch.from_numpy(self._draw(idx)), 'contrast_sample_idxs')
        sample.set_field(len(self), 'num_samples', field_type='metainfo')
        return item

    def _fetched(self, idx: int, sample: Any) -> int:
        """Find out which image an item is of.

        MMEngine's data sets take another at random where one cannot be read.
        """
        asked = self.dataset.get_data_info(idx).get('sample_idx')
        found = sample.get('sample_idx')
        if None not in (asked, found):
            # Of joined data sets it is the number in one of them.
            idx += int(found) - int(asked)
        label = sample.get('gt_label')
        known = self._labels[idx] if 0 <= idx < len(self) else None
        if label is not None and int(label) != known:
            raise ValueError(
                f'ContrastiveSamples: {type(self.dataset).__name__} gave an image of '
                f'class {int(label)} as number {idx}, which has class {known}, so its '
                'negatives are not known. Take out images that cannot be read, in '
                'whose place others are given, and transforms that change labels.'
            )
        return idx

    def _draw(self, idx: int) -> np.ndarray:
        """Draw the negatives of a sample, and put the sample itself before them."""
        label = self._classes[idx]
        size, end = self._sizes[label], self._ends[label]
        others = len(self) - size
        # NumPy's own state behind its faster generator: `np.random.choice` permutes
        # all of the others to draw some.
        state = np.random.get_bit_generator()  # type: ignore[attr-defined]
        generator = np.random.Generator(state)
        count = self.num_negatives
        drawn = generator.choice(others, count, replace=count > others, shuffle=False)
        drawn += size * (drawn >= end - size)
        return np.append(np.int32(idx), self._order[drawn])

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_negatives={self.num_negatives}, '
            f'dataset={self.dataset})'
        )
