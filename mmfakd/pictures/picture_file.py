# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of pictures, told before anything is drawn."""

from __future__ import annotations

from pathlib import PurePath

from matplotlib.backend_bases import FigureCanvasBase


def check_picture_name(path: str, others: str = '') -> None:
    """Refuse a name that matplotlib would refuse at the end.

    Args:
        path (str): The picture to write.
        others (str): What else the file may be, for the message, such as
            ``'figures (.json), '``. Defaults to none.

    Raises:
        ValueError: If its ending is that of no picture.
    """
    ending = PurePath(path).suffix.lower().lstrip('.')
    if ending not in FigureCanvasBase.filetypes:
        raise ValueError(
            f'-o {path}: expected {others}a picture (.png, .pdf, .svg). The ending '
            'says what is written.'
        )
