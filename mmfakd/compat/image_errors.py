# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The path of an image that cannot be read.

For an empty or truncated file mmcv hands on what OpenCV or Pillow raise, which know
no path. Its own words, for what OpenCV silently does not decode, come from
https://github.com/open-mmlab/mmpretrain/issues/1427
"""

from __future__ import annotations

import os.path as osp
from functools import wraps
from typing import Any

from .retold import retold


def name_unreadable_images() -> None:
    """Let mmcv's ``LoadImageFromFile`` name the file; again changes nothing."""
    from mmcv.transforms import LoadImageFromFile

    load = LoadImageFromFile.transform
    if hasattr(load, 'names_files'):
        return

    @wraps(load)
    def transform(self: Any, results: dict) -> dict | None:
        try:
            return load(self, results)
        except Exception as error:
            path = str(results.get('img_path'))
            what = str(error).strip() or type(error).__name__
            if osp.isfile(path):
                size = osp.getsize(path)
                what = f'it has {size} bytes; {what}' if size else 'it is empty'
            raise retold(
                error,
                f'The image {path} cannot be read: {what}. Write it anew, or '
                'take it out of the data set; check `data_root` and `data_prefix` '
                'where all are missing.',
            ) from error

    transform.names_files = True  # type: ignore[attr-defined]
    LoadImageFromFile.transform = transform
