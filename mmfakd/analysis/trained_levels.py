# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The levels of a distillation before training and after, on validation images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed
from torch import Tensor

from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.state_dict import find_state_dict, some
from mmfakd.checkpoints.student import student_state_dict
from mmfakd.messages import progress
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.pictures.level_maps import FixedImages, LevelMaps, joined


@dataclass
class TrainedLevels:
    """What is seen of a training.

    Args:
        model (BaseAlgorithm): The distillation, with the checkpoint's weights.
        inputs (Tensor): The images of the first batch (N, C, H, W), as the student got
            them.
        before (list[LevelMaps]): Its levels as training found them; none where what it
            began with is not there any more.
        after (list[LevelMaps]): And as it left them.
        note (str): Why there is no ``before``. Defaults to none.
    """

    model: Any
    inputs: Tensor
    before: list[LevelMaps]
    after: list[LevelMaps]
    note: str = ''

    def maps(self) -> tuple[list[LevelMaps], list[LevelMaps]]:
        """Choose the levels with more than one pixel.

        Returns:
            tuple[list[LevelMaps], list[LevelMaps]]: After training, and before.
        """
        return (
            [level for level in self.after if level.is_map],
            [level for level in self.before if level.is_map],
        )


def look_at_levels(cfg: Config, checkpoint: str, batches: int = 1) -> TrainedLevels:
    """Run validation images through a distillation, before training and after.

    Args:
        cfg (Config): Its config.
        checkpoint (str): Checkpoint of that training.
        batches (int): Validation batches. Defaults to 1.

    Returns:
        TrainedLevels: What is seen.

    Raises:
        ValueError: If there are no images, several batches have different sizes, or the
            checkpoint is that of a student or of another distillation.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    # Without lines of initialisation, one for each parameter.
    MMLogger.get_instance('plot', log_level='WARNING')
    loader = cfg.get('val_dataloader')
    if not loader:
        raise ValueError('it has no val_dataloader, so there are no images to look at.')
    found = Runner.build_dataloader(loader, seed=0)
    # A sampler of MMEngine's divides by the number of images.
    full = len(found.dataset) if hasattr(found.dataset, '__len__') else True
    seen = [batch for _, batch in zip(range(batches), found)] if full else []
    if not seen:
        raise ValueError('its validation set has no image to look at.')
    set_random_seed((cfg.get('randomness') or {}).get('seed') or 0)
    progress('building teacher and student')
    model_cfg, _ = resolve_model_cfg(cfg.model, cfg.get('data_preprocessor'))
    model = MODELS.build(model_cfg)
    model.init_weights()
    note = _load_start(model, cfg)
    trained = find_state_dict(fetch_checkpoint(checkpoint), checkpoint)
    alone = not student_state_dict(trained)
    if alone and model.distiller.state_dict():
        of_all = re.sub(r'_student(?=\.\w+$)', '', checkpoint)
        named = f', {of_all}' if of_all != checkpoint else ''
        raise ValueError(
            f'{checkpoint} holds the student alone; give the checkpoint of the '
            f'distillation{named}.'
        )
    progress(f'running {len(seen)} batches, before training and after')
    before = [] if note else _look(model, seen)[1]
    try:
        model.load_state_dict(trained, strict=True)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(
            f'{checkpoint} is of another distillation than the config: '
            f'{some([reason[:200] for reason in reasons], 4, " ", " ...")}'
        ) from error
    inputs, after = _look(model, seen)
    return TrainedLevels(model, inputs, before, after, note)


def _load_start(model: Any, cfg: Config) -> str:
    """Load what training began with, beside initial weights; say why it cannot be."""
    start = cfg.get('load_from')
    # Of a training that was resumed it is a checkpoint of its own.
    if not start or cfg.get('resume'):
        return ''
    try:
        load_checkpoint(model, start, map_location='cpu')
    except (OSError, ValueError) as error:
        return (
            f'What was there before training is not drawn: it began with {start}, '
            f'which cannot be loaded now ({error}).'
        )
    return ''


def _look(model: Any, batches: Sequence[Any]) -> tuple[Tensor, list[LevelMaps]]:
    looks = [FixedImages(model, batch).look() for batch in batches]
    sizes = {tuple(inputs.shape[-2:]) for inputs, _ in looks}
    if len(sizes) > 1:
        raise ValueError(
            f'--batches {len(batches)}: these have different sizes, {sorted(sizes)}; '
            'take one.'
        )
    return looks[0][0], joined([levels for _, levels in looks])
