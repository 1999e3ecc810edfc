# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Images of a folder, without labels."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path, list_dir_or_file

from mmfakd.registry import DATASETS

_ENDINGS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """All images below a folder, for distillation without labels.

    It takes the pipelines of any library, as each item has an ``img_path``: of a
    detector's, leave out ``LoadAnnotations``. With ``FeatureDistill`` it needs
    ``calculate_student_loss=False``.

    Args:
        data_root (str): The folder; it may lie on any backend of MMEngine.
        extensions (str | Sequence[str]): Endings of image files, or one of them, upper
            or lower case.
        **kwargs: Other arguments of MMEngine's ``BaseDataset``, such as
            ``pipeline`` and ``indices``.

    Raises:
        FileNotFoundError: If there is no image.

    Examples:
        >>> import tempfile, pathlib
        >>> from mmfakd.datasets import UnlabelledImages
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ('b.JPG', 'a.png', 'notes.txt'):
        ...     (folder / name).touch()
        >>> len(UnlabelledImages(str(folder)))
        2
    """

    def __init__(
        self, data_root: str, extensions: str | Sequence[str] = _ENDINGS, **kwargs: Any
    ) -> None:
        if isinstance(extensions, str):
            # Its letters would be endings of nearly all files.
            extensions = (extensions,)
        self.extensions = tuple(ending.lower() for ending in extensions)
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images.

        Returns:
            list[dict]: ``img_path`` and ``img_id`` of each, by name.

        Raises:
            FileNotFoundError: If there is no image.
        """
        there = '://' in self.data_root or osp.isdir(self.data_root)
        names = (
            list_dir_or_file(self.data_root, list_dir=False, recursive=True)
            if there
            else ()
        )
        images = sorted(n for n in names if n.lower().endswith(self.extensions))
        if not images:
            what = (
                f'no file below it ends in {self.extensions}' if there else 'no folder'
            )
            raise FileNotFoundError(
                f'data_root={self.data_root!r}: {what}. Give the folder of the images.'
            )
        return [
            dict(img_path=join_path(self.data_root, name), img_id=i)
            for i, name in enumerate(images)
        ]
