# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Evaluation on an image and its mirror image."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from mmfakd.checkpoints.student import student_config
from mmfakd.datasets.wrappers import pipeline_of, walk_loaders, walk_wrappers
from mmfakd.model_zoo.type_names import full_type_name, short_name

# What merges predictions, as the libraries' own test scripts have it.
_MODELS: dict[str, dict[str, Any]] = dict(
    mmpretrain=dict(type='mmpretrain.AverageClsScoreTTA'),
    mmdet=dict(
        # Registered at the root.
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    mmseg=dict(type='mmseg.SegTTAModel'),
)
# What the predictions of a mirrored image are turned back by.
_FLIP_KEYS = ('flip', 'flip_direction')


def add_tta(cfg: Config) -> None:
    """Let a test average over augmented images, as the libraries' ``--tta`` does.

    The config's ``tta_model`` and ``tta_pipeline`` say how; without them it is the
    image and its mirror image, merged as the test script of the model's library does.
    The wrapper goes around the model, be it a distillation, whose student predicts, or
    a plain one.

    Args:
        cfg (Config): The config of a test, changed in place.

    Raises:
        ValueError: If there is nothing to test on, the library has no default, or the
            pipeline does not end in packing.
    """
    library = _library_of(cfg)
    merge = cfg.get('tta_model') or _MODELS.get(library)
    if merge is None:
        raise ValueError(
            f'--tta: there is no default for models of {library!r}; add '
            '`tta_model=dict(type=...)` to the config, for example dict(type='
            "'mmpretrain.AverageClsScoreTTA'), and a `tta_pipeline`."
        )
    datasets: list[Any] = [
        dataset
        for loader in walk_loaders(cfg.get('test_dataloader'))
        for dataset in walk_wrappers(loader['dataset'], every=True)
        if isinstance(dataset, Mapping) and pipeline_of(dataset)
    ]
    if not datasets:
        raise ValueError(
            '--tta: the config has no `test_dataloader` whose data set has a '
            '`pipeline`; add one, as `mmfakd configs show r18w4_1xb50_digits` has it.'
        )
    given = cfg.get('tta_pipeline')
    for dataset in datasets:
        pipeline: Any = given or _mirrored(dataset['pipeline'], library)
        dataset['pipeline'] = copy.deepcopy(pipeline)
    model = cfg.model
    if cfg.get('data_preprocessor') is not None:
        # The runner would give it to the wrapper, which puts it over the model's own.
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
        cfg.data_preprocessor = None
    cfg.model = ConfigDict(**merge, module=model)


def _mirrored(pipeline: list[Any], library: str) -> list[Any]:
    """A test pipeline that packs an image and its mirror image."""
    *before, pack = copy.deepcopy(list(pipeline))
    kind = pack.get('type') if isinstance(pack, Mapping) else None
    if 'Pack' not in short_name(kind):
        raise ValueError(
            f'--tta: the test pipeline ends in {kind!r}; expected what packs the '
            "inputs, such as 'PackInputs'. Put it last, or add a `tta_pipeline` to the "
            'config.'
        )
    if pack.get('meta_keys'):
        pack['meta_keys'] = tuple(dict.fromkeys((*pack['meta_keys'], *_FLIP_KEYS)))
    # The image as it is comes first: merged samples keep the ground truth of that.
    flips = [dict(type=f'{library}.RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    return [*before, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def _library_of(cfg: Config) -> str:
    """Name of the library that the model that predicts is of."""
    if 'architecture' in cfg.model:
        cfg = student_config(cfg)
    scope = cfg.model.get('_scope_') or cfg.get('default_scope')
    prefix = full_type_name(cfg.model).partition('.')[0]
    return prefix if prefix in _MODELS else str(scope)
