# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pictures as files; a wrong name is told before anything is drawn."""

from __future__ import annotations

from pathlib import PurePath

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from mmfakd.checkpoints.atomic import whole_file


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


def save_picture(figure: Figure, path: str, dpi: int) -> None:
    """Write a figure, as a whole or not at all.

    Args:
        figure (Figure): The figure.
        path (str): The picture, whose ending is its format.
        dpi (int): Pixels an inch.

    Raises:
        OSError: If it cannot be written.
    """
    kind = PurePath(path).suffix.lower().lstrip('.')
    with whole_file(path) as part:
        figure.savefig(part, format=kind, dpi=dpi)
