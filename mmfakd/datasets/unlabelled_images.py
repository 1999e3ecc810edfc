# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Images of a folder, without labels."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
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
        data_prefix (str | dict): A folder below it, whose images alone are taken, as
            ``'train2017/'``, ``dict(img='train2017/')`` or
            ``dict(img_path='train2017/')``. Defaults to '', none.
        extensions (str | Sequence[str]): Endings of image files, or one of them, upper
            or lower case.
        **kwargs: Other arguments of MMEngine's ``BaseDataset``, such as
            ``pipeline`` and ``indices``.

    Raises:
        ValueError: For an ``ann_file`` or a ``filter_cfg``, which nothing here would
            read, and a ``data_prefix`` of another form.
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
        self,
        data_root: str,
        extensions: str | Sequence[str] = _ENDINGS,
        data_prefix: str | Mapping[str, str] = '',
        **kwargs: Any,
    ) -> None:
        for name in ('ann_file', 'filter_cfg'):
            if kwargs.get(name):
                raise ValueError(
                    f'{name}={kwargs[name]!r}: UnlabelledImages takes all images below '
                    f'a folder and reads neither a list of them nor labels. Leave '
                    f'{name} out (`_delete_=True` in the data set drops what its '
                    '`_base_` says), and give the folder with the images that are '
                    'meant (`data_root`, `data_prefix`).'
                )
        below = _folder_of(data_prefix)
        # What BaseDataset makes of an empty one ends in a slash, also in messages.
        self.folder = join_path(data_root, below) if below else data_root
        if isinstance(extensions, str):
            # Its letters would be endings of nearly all files.
            extensions = (extensions,)
        self.extensions = tuple(ending.lower() for ending in extensions)
        super().__init__(
            data_root=data_root, data_prefix=dict(img_path=below), **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """List the images.

        Returns:
            list[dict]: ``img_path`` and ``img_id`` of each, by name.

        Raises:
            FileNotFoundError: If there is no image.
        """
        there = '://' in self.folder or osp.isdir(self.folder)
        names = _files_below(self.folder) if there else ()
        images = sorted(n for n in names if n.lower().endswith(self.extensions))
        if not images:
            what = (
                f'no file below it ends in {self.extensions}' if there else 'no folder'
            )
            given = f'data_root={self.data_root!r}'
            if self.folder != self.data_root:
                given += f' with data_prefix, {self.folder!r}'
            raise FileNotFoundError(f'{given}: {what}. Give the folder of the images.')
        return [
            dict(img_path=join_path(self.folder, name), img_id=i)
            for i, name in enumerate(images)
        ]


def _folder_of(prefix: Any) -> str:
    """The one folder that a prefix names, in any library's form; '' for none."""
    values = list(prefix.values()) if isinstance(prefix, Mapping) else [prefix]
    named = [value for value in values if value]
    if len(named) > 1 or not all(isinstance(value, str) for value in named):
        raise ValueError(
            f'data_prefix={prefix!r}: expected one folder below data_root, as '
            "'train2017/', dict(img='train2017/') or dict(img_path='train2017/'). "
            'UnlabelledImages reads images alone: leave out the folders of anything '
            'else.'
        )
    return named[0] if named else ''


def _files_below(folder: str) -> Iterator[str]:
    """Files of a folder and of those in it, by their paths below it.

    As MMEngine lists them, which follows links; but none to a folder on the way to it:
    that would not end.
    """
    if '://' in folder:
        yield from list_dir_or_file(folder, list_dir=False, recursive=True)
    else:
        yield from _walk(folder, '', frozenset())


def _walk(folder: str, below: str, way: frozenset[str]) -> Iterator[str]:
    real = osp.realpath(folder)
    if real in way:
        return
    for entry in os.scandir(folder):
        path = osp.join(below, entry.name)
        if entry.is_dir():
            yield from _walk(entry.path, path, way | {real})
        elif entry.is_file() and not entry.name.startswith('.'):
            yield path
