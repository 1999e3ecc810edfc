# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's data preprocessor, written as one that mmpretrain's classifiers take."""

from __future__ import annotations

from typing import Any

from mmengine.config import ConfigDict
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS as ROOT_MODELS

from .resolve import innermost


def class_of(cfg: dict) -> Any:
    """Find what the ``type`` of a config names.

    Args:
        cfg (dict): It.

    Returns:
        Any: The class; ``None`` for a name that is not registered.
    """
    kind = cfg.get('type')
    if isinstance(kind, str):
        with ROOT_MODELS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
            kind = registry.get(kind)
    return kind


def suit_classifier(cfg: ConfigDict) -> None:
    """Give a classifier a preprocessor that does the same and takes its arguments.

    mmrazor's configs give MMEngine's to the distillation. A classifier hands its own
    one ``batch_augments``, which MMEngine's does not take.

    Args:
        cfg (ConfigDict): A model's config, changed in place. One of another kind, or
            with another preprocessor, stays as it is.
    """
    model = innermost(cfg)
    given = model.get('data_preprocessor')
    if not isinstance(given, dict) or not _is_classifier(model):
        return
    if class_of(given) is not ImgDataPreprocessor:
        return
    others = ('type', '_scope_', 'bgr_to_rgb', 'rgb_to_bgr', 'non_blocking')
    kept = {key: value for key, value in given.items() if key not in others}
    if kept.get('mean') is None and kept.get('std') is None:
        # Without, a classifier's preprocessor leaves it open what images are like.
        kept.update(mean=[0.0], std=[1.0])
    model.data_preprocessor = ConfigDict(
        type='mmpretrain.ClsDataPreprocessor',
        to_rgb=bool(given.get('bgr_to_rgb') or given.get('rgb_to_bgr')),
        **kept,
    )


def _is_classifier(model: dict) -> bool:
    # Importing the class would need mmpretrain where there are detectors alone.
    bases = getattr(class_of(model), '__mro__', ())
    home = 'mmpretrain.models.classifiers.base'
    return any(base.__module__ == home for base in bases)
