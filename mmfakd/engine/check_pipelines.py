# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What pipelines, and hooks that change them, would do in the course of a training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.dataset import Compose
from mmengine.hooks import Hook

from mmfakd.datasets import UnlabelledImages
from mmfakd.datasets.random_state import same_random_state
from mmfakd.datasets.wrappers import (
    pipeline_of,
    read_datasets,
    walk_transforms,
    walk_wrappers,
)
from mmfakd.model_zoo.type_names import type_name

# Images that a pipeline is tried on: it may drop some by chance.
_TRIED = 3


def check_switches(
    hooks: Iterable[Hook], dataset: Any, labelled: bool, epochs: int
) -> None:
    """Refuse hooks that change the pipeline to one that fails, near the end.

    Configs of YOLOX and RTMDet have mmdet's ``YOLOXModeSwitchHook`` and
    ``PipelineSwitchHook``, which act in the last epochs. A pipeline is tried on images
    without labels, which many transforms drop.

    Args:
        hooks (Iterable[Hook]): The hooks of a training.
        dataset (Any): The data set of its loader.
        labelled (bool): Whether the student's own loss counts, which needs labels.
        epochs (int): Epochs of the training; 1 where it counts iterations.

    Raises:
        ValueError: If a hook calls a method that the data set lacks, or switches to a
            pipeline that takes no image of :class:`UnlabelledImages`.
    """
    for hook in hooks:
        name = type(hook).__name__
        mixes = hasattr(dataset, 'update_skip_type_keys')
        if hasattr(hook, 'skip_type_keys') and not mixes:
            # Mosaics cannot be made of images without boxes.
            wrap = ', or wrap the data set in mmdet.MultiImageMixDataset' * labelled
            raise ValueError(
                f'The hook {name} would end the training with an error when it acts: '
                f'it changes the mixing of images, which the data set '
                f'({type(dataset).__name__}) does not do (it has no '
                'update_skip_type_keys, as mmdet.MultiImageMixDataset has). Leave this '
                f'hook out (`custom_hooks`){wrap}.'
            )
        acts = getattr(hook, 'switch_epoch', 0) < epochs
        pipeline = getattr(hook, 'switch_pipeline', None)
        failure = _failure(pipeline, dataset) if pipeline and acts else ''
        if failure and not labelled:
            raise ValueError(
                f'The hook {name} would switch to a pipeline that takes no image '
                f'without labels ({failure}): the training would end with an error '
                'then. Leave this hook out (`custom_hooks`), or give it a pipeline '
                'without LoadAnnotations and crops that look for boxes.'
            )


def _failure(pipeline: Any, dataset: Any) -> str:
    """What a pipeline does with images that have no labels; '' if it takes them."""
    found = ''
    for images in read_datasets(dataset):
        if not isinstance(images, UnlabelledImages):
            continue
        with same_random_state():
            for index in range(min(_TRIED, len(images))):
                try:
                    transforms = Compose(copy.deepcopy(pipeline))
                    if transforms(images.get_data_info(index)) is not None:
                        return ''
                    found = 'it drops those without boxes'
                # A transform may raise anything.
                except Exception as error:
                    found = f'{type(error).__name__}: {error}'
    return found


def tell_pad(hooks: Iterable[Hook], dataset: Any) -> str:
    """Say that a pipeline pads, where a distiller is to ignore padding.

    Args:
        hooks (Iterable[Hook]): The hooks of a training.
        dataset (Any): The data set of its loader.

    Returns:
        str: What ``ignore_padding`` cannot know, and the cure; '' where no pipeline
        has a ``Pad``.
    """
    switched = (transform for hook in hooks for transform in _switched(hook))
    for transform in (*_transforms(dataset), *switched):
        if 'Pad' in _names(transform):
            return (
                'ignore_padding=True, and the training pipeline has a Pad: what `Pad` '
                'adds counts as image, as `img_shape` is the padded size after it. Let '
                'the data_preprocessor pad (`pad_size_divisor`, or BatchFixedSizePad '
                'in `batch_augments`).'
            )
    return ''


def _transforms(dataset: Any) -> Iterator[Any]:
    """The transforms of a data set and of those that it wraps."""
    for one in walk_wrappers(dataset, every=True):
        yield from walk_transforms(pipeline_of(one))


def _switched(hook: Hook) -> Iterator[Any]:
    """The transforms that a hook switches to later, mostly configs."""
    return walk_transforms(getattr(hook, 'switch_pipeline', None))


def _names(transform: Any) -> list[str]:
    """Names of the classes of a transform; of a config the one that it says."""
    if isinstance(transform, Mapping):
        return [type_name(transform)]
    return [base.__name__ for base in type(transform).__mro__]
