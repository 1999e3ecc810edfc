# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""CIFAR-100, from the official pickles or from arrays."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
import pickle
import re
from typing import Any

import numpy as np
from mmpretrain.datasets import CIFAR100 as OfficialCIFAR100

from mmfakd.registry import DATASETS

from .image_arrays import ImageArrays

_NUM_IMAGES = dict(train=50_000, test=10_000)


@DATASETS.register_module()
class CIFAR100(ImageArrays):
    """CIFAR-100 in whichever of its containers the folder has.

    ``data_root`` holds either the folder ``cifar-100-python`` of the official
    archive, as mmpretrain's ``CIFAR100`` expects it, or the same images as arrays of
    :class:`ImageArrays`: ``train.npz`` or its parts ``train_0.npz``, ``train_1.npz``,
    ..., and ``test.npz``. Where both are, the official files are read. Nothing is
    downloaded.

    Source: A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*,
    2009, https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        data_root (str): The folder.
        split (str): ``'train'`` or ``'test'``. Defaults to ``'train'``.
        channel_order (str): ``'rgb'``, or ``'bgr'`` for images as OpenCV reads files,
            so that one pipeline takes both. Defaults to ``'rgb'``.
        **kwargs: Other arguments of :class:`ImageArrays`, such as ``images_per_class``.

    Raises:
        ValueError: For an unknown split or order of channels, a damaged file, or arrays
            that are not all of CIFAR-100.
        FileNotFoundError: If the folder has neither container.
    """

    METAINFO = OfficialCIFAR100.METAINFO

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        channel_order: str = 'rgb',
        **kwargs: Any,
    ) -> None:
        if split not in _NUM_IMAGES:
            raise ValueError(f"split={split!r}; expected 'train' or 'test'.")
        if channel_order not in ('rgb', 'bgr'):
            raise ValueError(
                f"channel_order={channel_order!r}; expected 'rgb' or 'bgr'."
            )
        self.split = split
        self.channel_order = channel_order
        super().__init__(data_files=(), data_root=data_root, **kwargs)

    def load_data_list(self) -> np.ndarray:
        """Find and read the images of the split.

        Returns:
            np.ndarray: The rows of the arrays that belong to the data set.
        """
        self.data_files = self._find_files()
        rows = super().load_data_list()
        shape, expected = self.images.shape, (_NUM_IMAGES[self.split], 32, 32, 3)
        if shape != expected:
            raise ValueError(
                f'{", ".join(self.data_files)} in {osp.abspath(self.data_root)}: '
                f'images of shape {shape}; the {self.split} images of CIFAR-100 are '
                f'{expected}. Is a part missing? For other images use '
                'mmfakd.ImageArrays.'
            )
        if self.channel_order == 'bgr':
            self.images = self.images[..., ::-1]
        return rows

    def _find_files(self) -> list[str]:
        """Name the files of the split in the folder."""
        official = osp.join(OfficialCIFAR100.base_folder, self.split)
        whole = f'{self.split}.npz'
        for name in (official, whole):
            if osp.isfile(osp.join(self.data_root, name)):
                return [name]
        names = os.listdir(self.data_root) if osp.isdir(self.data_root) else []
        parts = {
            int(match[1]): match[0]
            for match in (re.fullmatch(rf'{self.split}_(\d+)\.npz', n) for n in names)
            if match
        }
        if parts:
            return [parts[number] for number in sorted(parts)]
        raise FileNotFoundError(
            f'{osp.abspath(self.data_root)} has neither {official} nor {whole} nor '
            f'{self.split}_0.npz, {self.split}_1.npz, ...: extract '
            f'{OfficialCIFAR100.url} there, or put the arrays there, or set '
            '`data_root` of the dataset to where they are.'
        )

    def _read(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        if path.endswith('.npz'):
            return super()._read(path)
        md5 = dict(OfficialCIFAR100.train_list + OfficialCIFAR100.test_list)[self.split]
        with open(path, 'rb') as file:
            content = file.read()
        # Before unpickling, which could run code of a file that is not the official.
        if hashlib.md5(content).hexdigest() != md5:
            raise ValueError(
                f'{osp.abspath(path)} is not the official file, as its MD5 is not '
                f'{md5}: it may be truncated. Extract {OfficialCIFAR100.url} again.'
            )
        entries = pickle.loads(content, encoding='latin1')
        images = entries['data'].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), np.array(entries['fine_labels'])
