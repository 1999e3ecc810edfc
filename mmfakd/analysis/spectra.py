# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Draw what frequency attention learned.

Upper row: magnitude of the filter of each level, mean over its channels, the mean
(DC) in the middle. Lower row: amplitude spectra over the frequency's radius of the
teacher's features, the student's, and what is predicted of these, before training and
after.
"""

from __future__ import annotations

from mmfakd.model_zoo.outputs import check_outputs
from mmfakd.pictures.figures import draw_overview
from mmfakd.pictures.picture_file import save_picture

from .distillation import open_distillation
from .trained_levels import look_at_levels


def plot_spectra(
    config: str,
    checkpoint: str,
    out: str,
    teacher_ckpt: str | None = None,
    batches: int = 1,
) -> str:
    """Draw the filters of a run, and the spectra of features with and without it.

    Args:
        config (str): Path of a distillation's config, or its name.
        checkpoint (str): Checkpoint of that run.
        out (str): Picture to write.
        teacher_ckpt (str, optional): The teacher's weights.
        batches (int): Validation batches.

    Returns:
        str: What was drawn.

    Raises:
        FileExistsError: If the picture is a file that is read.
        FileNotFoundError: If there is no such config; near names are listed.
        OSError: If the picture cannot be written.
        ValueError: If the distiller has no frequency attention on maps.
    """
    check_outputs(True, [out], [checkpoint])
    with open_distillation(config, teacher_ckpt) as cfg:
        seen = look_at_levels(cfg, checkpoint, batches)
        levels, before = seen.maps()
        filters = [level for level in levels if level.filter is not None]
        if not filters:
            raise ValueError(
                'no FrequencyAttention on maps larger than 1x1 in its distiller; '
                'expected a FAM-KD config.'
            )
    save_picture(draw_overview(levels, before), out, dpi=120)
    drawn = f'{out}: {len(filters)} filters, {len(levels)} spectra.'
    return f'{drawn}\n{seen.note}'.strip()
