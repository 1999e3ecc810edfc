# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Images and labels kept as arrays in NumPy files."""

from __future__ import annotations

import os
import os.path as osp
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine import load
from mmengine.dataset import force_full_init
from mmpretrain.datasets import BaseDataset

from mmfakd.registry import DATASETS

# What reading a truncated, altered or foreign file raises.
_DAMAGE = (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


@DATASETS.register_module()
class ImageArrays(BaseDataset):
    """Images of one size and their labels, from ``.npz`` files.

    A file holds ``images``, uint8 of shape (N, H, W, 3), (N, H, W, 1) or (N, H, W),
    and ``labels``, integers of shape (N,). Several files are parts of one data set,
    in the order given. The arrays are held once, not as one pickled record per image,
    and forked workers share them.

    Args:
        data_files (str | Sequence[str]): The file, or the parts.
        data_root (str): Folder that relative ``data_files`` start from. Defaults
            to ''.
        classes (str | Sequence[str], optional): Names of the classes, or a file of
            them: a list in a ``.json`` file, or one a line. Defaults to None: those
            of ``metainfo``, else unknown.
        images_per_class (int, optional): Take only the first so many images of each
            class, in the order of the files. Defaults to None, all.
        image_key (str): Name of the images in the files. Defaults to ``'images'``.
        label_key (str): Name of the labels in the files. Defaults to ``'labels'``.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``. Into its ``pipeline``
            an image enters as ``img``, a uint8 array of shape (H, W, C) of its own,
            with channels as in the file, and its class as ``gt_label``.
            ``serialize_data`` has no effect.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, lacks an array, or has one that is not as
            described; or if a class has fewer images than ``images_per_class``.
    """

    def __init__(
        self,
        data_files: str | os.PathLike | Sequence[str | os.PathLike],
        data_root: str = '',
        classes: str | Sequence[str] | None = None,
        images_per_class: int | None = None,
        image_key: str = 'images',
        label_key: str = 'labels',
        **kwargs: Any,
    ) -> None:
        count = images_per_class
        if count is not None and not (isinstance(count, int) and count >= 1):
            raise ValueError(
                f'images_per_class={count!r}; expected a positive whole '
                'number, or None for all images.'
            )
        if isinstance(data_files, (str, os.PathLike)):
            data_files = [data_files]
        self.data_files = [osp.expanduser(name) for name in data_files]
        self.images_per_class = images_per_class
        self.image_key = image_key
        self.label_key = label_key
        # `data_list` holds row numbers, which are no records to serialize.
        kwargs['serialize_data'] = False
        root = osp.expanduser(data_root)
        super().__init__(ann_file='', data_root=root, classes=classes, **kwargs)

    def load_data_list(self) -> np.ndarray:
        """Read the arrays.

        Returns:
            np.ndarray: The rows of the arrays that belong to the data set.
        """
        paths = [osp.join(self.data_root, name) for name in self.data_files]
        if not paths:
            raise ValueError('data_files is empty; expected one file or more.')
        parts = []
        for path in paths:
            images, labels = self._read(path)
            self._check(path, images, labels)
            parts.append((images, labels))
            if images.shape[1:] != parts[0][0].shape[1:]:
                raise ValueError(
                    f'{path}: images of {images.shape[1:]}, but those of {paths[0]} '
                    f'are of {parts[0][0].shape[1:]}; all parts need one size.'
                )
        images, labels = map(np.concatenate, zip(*parts))
        # Grey images get the channel that transforms and models expect.
        self.images = images[..., None] if images.ndim == 3 else images
        self.labels = labels.astype(np.int64)
        if self.images_per_class is None:
            return np.arange(len(labels))
        return self._first_of_each_class(self.images_per_class)

    def _read(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Read images and labels of one file."""
        if not osp.isfile(path):
            folder = osp.dirname(osp.abspath(path))
            names = os.listdir(folder) if osp.isdir(folder) else []
            raise FileNotFoundError(
                f'{osp.abspath(path)} does not exist. .npz files in that folder: '
                f'{sorted(name for name in names if name.endswith(".npz"))}. Set '
                '`data_root` and `data_files` of the dataset.'
            )
        keys = (self.image_key, self.label_key)
        try:
            # NumPy would take what is no archive for a pickle, and say so.
            if not zipfile.is_zipfile(path):
                raise zipfile.BadZipFile('it is no zip archive')
            with np.load(path, allow_pickle=False) as file:
                found = sorted(file.files)
                arrays = [file[key] for key in keys if key in found]
        except _DAMAGE as error:
            raise ValueError(
                f'{path} cannot be read: {error}. Expected an .npz file as '
                '`numpy.savez` writes it, whole and without Python objects.'
            ) from error
        if len(arrays) < len(keys):
            raise ValueError(
                f'{path} holds the arrays {found}; expected {list(keys)}. Other names '
                'are set with `image_key` and `label_key`.'
            )
        return arrays[0], arrays[1]

    def _check(self, path: str, images: np.ndarray, labels: np.ndarray) -> None:
        """Raise if the arrays of a file are not images and their classes."""
        of_images = images.ndim >= 3 and images.shape[3:] in ((), (1,), (3,))
        if images.dtype != np.uint8 or not of_images:
            raise ValueError(
                f'{path}: {self.image_key!r} is {images.dtype} of shape '
                f'{images.shape}; expected uint8 of shape (N, H, W, 3), (N, H, W, 1) '
                'or (N, H, W).'
            )
        if labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu':
            raise ValueError(
                f'{path}: {self.label_key!r} is {labels.dtype} of shape '
                f'{labels.shape}; expected integers of shape ({len(images)},), one '
                'for each image.'
            )
        if len(labels) == 0:
            raise ValueError(f'{path} holds no images.')
        names = self._metainfo.get('classes')
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (names is not None and high >= len(names)):
            count = len(names or ())
            expected = f'0 to {count - 1}, as there are {count} classes'
            raise ValueError(
                f'{path}: labels from {low} to {high}; expected '
                f'{"0 or more" if names is None else expected}.'
            )

    def _first_of_each_class(self, count: int) -> np.ndarray:
        """Find the rows of the first images of each class, in rising order."""
        names = self._metainfo.get('classes')
        rows = []
        for label in range(self.labels.max() + 1 if names is None else len(names)):
            of_class = np.flatnonzero(self.labels == label)
            if len(of_class) < count:
                raise ValueError(
                    f'images_per_class={count}: class {label} has {len(of_class)} '
                    'images; give a number up to that.'
                )
            rows.append(of_class[:count])
        return np.sort(np.concatenate(rows))

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Look up one image.

        Args:
            idx (int): Its number; a negative one counts from the end.

        Returns:
            dict: ``img``, a copy that transforms may write into, ``gt_label`` and
            ``sample_idx``.
        """
        row = self.data_list[idx]
        return dict(
            img=self.images[row].copy(),
            gt_label=int(self.labels[row]),
            sample_idx=idx if idx >= 0 else len(self) + idx,
        )

    def _copy_without_annotation(self, memo: dict | None = None) -> ImageArrays:
        # A subset shares the arrays. (MMEngine's default is one dict for all calls.)
        shared = {id(array): array for array in (self.images, self.labels)}
        return super()._copy_without_annotation({**(memo or {}), **shared})

    def _compat_classes(
        self, metainfo: dict | None, classes: str | Sequence[str] | None
    ) -> dict:
        if isinstance(classes, str) and classes.endswith('.json'):
            classes = load(osp.expanduser(classes))
        return super()._compat_classes(metainfo, classes)

    def extra_repr(self) -> list[str]:
        """Describe where the images come from.

        Returns:
            list[str]: Lines for ``repr``.
        """
        return [
            f'Prefix of data: \t{self.data_root}',
            f'Files: \t{", ".join(self.data_files)}',
            f'Images per class: \t{self.images_per_class or "all"}',
        ]
