# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The levels of a distillation before training and after, on validation images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed
from torch import Tensor

from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.state_dict import find_state_dict, some
from mmfakd.checkpoints.student import student_state_dict
from mmfakd.engine.check_config import check_sources
from mmfakd.messages import progress
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.models.algorithms.built_models import drop_pretrained
from mmfakd.pictures.level_maps import FixedImages, LevelMaps, joined

from .run import Run

_NOT_DRAWN = 'What was there before training is not drawn:'


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


def beginning(run: Run) -> Config:
    """Give the config that a training began with, and its random seed.

    Args:
        run (Run): The training, which may have been resumed since.

    Returns:
        Config: The config of its first log. A seed that was drawn stands in it, too.
    """
    randomness = ConfigDict(run.begin.get('randomness') or {}, seed=run.seed)
    begin = Config(dict(run.begin, randomness=randomness))
    if run.from_start and begin.get('resume') is True and not begin.get('load_from'):
        # What MMEngine's own `--resume` says in a new work dir, where it begins anew.
        begin.resume = 'auto'
    return begin


def look_at_levels(
    cfg: Config, checkpoint: str, batches: int = 1, begin: Config | None = None
) -> TrainedLevels:
    """Run validation images through a distillation, before training and after.

    Args:
        cfg (Config): Its config.
        checkpoint (str): Checkpoint of that training.
        batches (int): Validation batches. Defaults to 1.
        begin (Config, optional): The config that the training began with, if it was
            resumed since, see :func:`beginning`. Defaults to ``cfg``.

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
    begin = cfg if begin is None else begin
    check_sources(begin)
    saved = fetch_checkpoint(checkpoint)
    trained = find_state_dict(saved, checkpoint)
    seed = _seed(begin, saved)
    note = _unknown_start(begin, seed)
    set_random_seed(seed or 0)
    progress('building teacher and student')
    model = _build(cfg, begin, bool(note))
    note = note or _load_start(model, begin)
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


def _seed(begin: Config, checkpoint: dict) -> int | None:
    """The seed that a training began with; None if it is not known."""
    # Resumptions keep the one in the checkpoint. That of a config may have given way
    # to an option, or was to be drawn.
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and isinstance(meta.get('seed'), int):
        return meta['seed']
    return (begin.get('randomness') or {}).get('seed')


def _unknown_start(begin: Config, seed: int | None) -> str:
    """Say why it is not known what training began with, if it is not."""
    # With 'auto' the rest of the config is that of a training which begins.
    if begin.get('resume') not in (None, False, 'auto'):
        return (
            f'{_NOT_DRAWN} the training was resumed, and the config that it began with '
            'is not there.'
        )
    if seed is None:
        return (
            f'{_NOT_DRAWN} neither config, log nor checkpoint tell the random seed '
            'that it began with.'
        )
    start = (begin.get('model') or {}).get('student_ckpt')
    if start is None:
        return ''
    try:
        fetch_checkpoint(str(start))
    except (OSError, ValueError) as error:
        return _gone(start, error)
    return ''


def _build(cfg: Config, begin: Config, unknown: bool) -> Any:
    """Build a distillation with the weights that it began with, but `load_from`."""
    starts = {} if unknown else begin.get('model') or {}
    model_cfg = ConfigDict(cfg.model)
    for key in ('student_ckpt', 'inherit'):
        model_cfg.pop(key, None)
        if key in starts:
            model_cfg[key] = starts[key]
    model_cfg, _ = resolve_model_cfg(model_cfg, cfg.get('data_preprocessor'))
    model = MODELS.build(model_cfg)
    if unknown:
        # Nobody looks at it before the checkpoint is loaded: no need for a download.
        drop_pretrained(model.architecture)
    model.init_weights()
    return model


def _load_start(model: Any, begin: Config) -> str:
    """Load what training began with, beside initial weights; say why it cannot be."""
    start = begin.get('load_from')
    if not start:
        return ''
    try:
        load_checkpoint(model, start, map_location='cpu')
    except (OSError, ValueError) as error:
        return _gone(start, error)
    return ''


def _gone(start: Any, error: Exception) -> str:
    return f'{_NOT_DRAWN} it began with {start}, which cannot be loaded now ({error}).'


def _look(model: Any, batches: Sequence[Any]) -> tuple[Tensor, list[LevelMaps]]:
    looks = [FixedImages(model, batch).look() for batch in batches]
    sizes = {tuple(inputs.shape[-2:]) for inputs, _ in looks}
    if len(sizes) > 1:
        raise ValueError(
            f'--batches {len(batches)}: these have different sizes, {sorted(sizes)}; '
            'take one.'
        )
    return looks[0][0], joined([levels for _, levels in looks])
