# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Image files for models of data sets that are arrays."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmfakd.model_zoo.type_names import full_type_name

# Inferencers read files as BGR; the classifiers of CIFAR take RGB. A model of one's own
# has a scope of its own, in which mmpretrain's names are unknown.
TO_CIFAR = (
    dict(type='mmpretrain.NumpyToPIL', to_rgb=True),
    dict(type='mmpretrain.PILToNumpy'),
    dict(type='Resize', scale=(32, 32)),
)
# The weights of luminance, of 256: no sum of three equal values is rounded down.
TO_GREY = dict(type='RandomGrayscale', prob=1.0, channel_weights=[29, 150, 77])
_TO_DIGIT = (TO_GREY, dict(type='Resize', scale=(8, 8)))
# What brings files to what a data set gives, and the arguments with which that gives
# images as files are. Both leave the input of a model as it was.
_DATASETS: dict[str, tuple[tuple[dict, ...], dict[str, str]]] = dict(
    CIFAR100=(TO_CIFAR, dict(channel_order='bgr')),
    Digits=(_TO_DIGIT, {}),
)


def take_image_files(cfg: Config) -> None:
    """Let inferencers prepare image files as the data set of a test does its arrays.

    They read ``test_dataloader.dataset.pipeline`` alone, and give it BGR images of any
    size. What the config's own transforms expect is made of these by transforms before
    them; the data set gives BGR images, too, so that a test scores what it did. So
    does one with ``tta_pipeline``, which stands in for that of the data set.

    Args:
        cfg (Config): The config of a plain model, changed in place. It stays as it is
            unless its test images are those of ``mmfakd.CIFAR100`` or
            ``mmfakd.Digits``, and after the first time.
    """
    loader = cfg.get('test_dataloader')
    dataset: Any = loader.get('dataset') if isinstance(loader, Mapping) else None
    if not isinstance(dataset, Mapping) or 'pipeline' not in dataset:
        return
    library, _, name = full_type_name(dataset).partition('.')
    if library != 'mmfakd' or name.rpartition('.')[2] not in _DATASETS:
        return
    before, arguments = _DATASETS[name.rpartition('.')[2]]
    own = list(dataset['pipeline'])
    # Who asks for BGR oneself has transforms that take it.
    given = any(dataset.get(key) == value for key, value in arguments.items())
    if given or own[: len(before)] == [*before]:
        return
    # Other loaders may share the data set.
    cfg.test_dataloader = copy.deepcopy(loader)
    cfg.test_dataloader.dataset.update(arguments, pipeline=_joined(before, own))
    if cfg.get('tta_pipeline'):
        cfg.tta_pipeline = _joined(before, cfg.tta_pipeline)


def _joined(before: Sequence[dict], pipeline: Sequence[Any]) -> list[Any]:
    return [*copy.deepcopy(before), *copy.deepcopy(pipeline)]
