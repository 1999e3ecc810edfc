# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Refuse data that nothing can be learned from, before the first step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmfakd.checkpoints.class_names import first_renamed, renamed_classes
from mmfakd.checkpoints.first_meta import first_meta
from mmfakd.datasets.wrappers import (
    dataset_meta,
    read_datasets,
    walk_loaders,
    walk_wrappers,
)
from mmfakd.engine.check_last_batch import check_last_batch
from mmfakd.engine.check_pipelines import check_switches, tell_pad
from mmfakd.engine.known_meta import known_meta
from mmfakd.engine.unwrap import unwrapped_model
from mmfakd.models.algorithms.check_batches import (
    check_batches,
    image_name,
    label_count,
)
from mmfakd.models.algorithms.check_class_counts import class_losses
from mmfakd.models.algorithms.check_mean_teacher import check_mean_teacher
from mmfakd.models.algorithms.count_classes import is_panoptic, predicted_counts
from mmfakd.registry import HOOKS


@HOOKS.register_module()
class CheckDataHook(Hook):
    """Check the training data when training begins.

    There must be batches, the last of an epoch must have two images where the
    distiller needs them, the data set may not have more classes than the model
    predicts, and a detection data set must know the categories of its file. A warning
    tells of joined data sets that call a label by different names and, if a loss
    compares predictions, of a teacher whose checkpoint has other names for the
    classes. A hook that would overwrite the teacher, mmdet's ``MeanTeacherHook``, is
    refused, and so is one that would later switch to a pipeline that fails, as mmdet's
    ``YOLOXModeSwitchHook`` and ``PipelineSwitchHook`` do on images without labels. Of
    a pipeline with a ``Pad`` beside ``ignore_padding`` a warning tells. From then on
    the model itself looks at the labels of every batch, and images that do not fit
    into one batch are named.

    Raises:
        ValueError: At the beginning of the training if one of this is not so; later
            for a label out of range and images of different sizes.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check data set and loader.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If there is no batch, one of too few images, classes do not
                fit, or a hook would overwrite the teacher or end the training.
        """
        whole = unwrapped_model(runner)
        model = getattr(whole, 'architecture', whole)
        labelled = getattr(whole, 'calculate_student_loss', True)
        distiller = getattr(whole, 'distiller', None)
        if distiller is not None and hasattr(whole, 'teacher'):
            # That hook acts before the first step, where the model looks for it.
            check_mean_teacher(runner.hooks)
        for loader in walk_loaders(runner.train_dataloader):
            _check_length(loader)
            check_switches(runner.hooks, loader.dataset, labelled, runner.max_epochs)
            if getattr(distiller, 'ignore_padding', False):
                _warn(tell_pad(runner.hooks, loader.dataset))
            if distiller is not None:
                check_last_batch(loader, distiller, runner.max_iters)
            # Of a data set without labels nothing of them is asked.
            for dataset in read_datasets(loader.dataset) if labelled else ():
                _check_categories(dataset)
            if labelled:
                _check_joined(loader.dataset)
            _check_classes(loader.dataset, model)
            if hasattr(loader, 'collate_fn'):
                loader.collate_fn = _NamingCollate(loader.collate_fn)
        check_batches(model)
        _check_names(unwrapped_model(runner), known_meta(runner).get('classes'))


class _NamingCollate:
    """Make batches as before, and name images whose sizes differ.

    A class, as loaders that spawn their workers pickle it.
    """

    def __init__(self, collate: Callable[[Sequence], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence) -> Any:
        try:
            return self.collate(items)
        except RuntimeError as error:
            if 'equal size' not in str(error) or not isinstance(items[0], dict):
                raise
            shapes = {
                tuple(item['inputs'].shape): image_name(item.get('data_samples'))
                for item in items
            }
            sizes = ', '.join(f'{name}: {shape}' for shape, name in shapes.items())
            raise ValueError(
                f'The images of a batch have different shapes ({sizes}). Expected one: '
                'end the pipeline in a crop or resize to one size, or collate with '
                "dict(type='pseudo_collate') where the data_preprocessor pads."
            ) from error


def _warn(text: str) -> None:
    if text:
        print_log(text, logger='current', level=logging.WARNING)


def _check_length(loader: DataLoader) -> None:
    try:
        images, batches = len(loader.dataset), len(loader)  # type: ignore[arg-type]
    except TypeError:
        # A stream of unknown length.
        return
    sampler = getattr(loader, 'sampler', None)
    # A sampler of batches has one of its own.
    inner = getattr(getattr(loader, 'batch_sampler', None), 'sampler', None)
    infinite = any(isinstance(s, InfiniteSampler) for s in (sampler, inner))
    endless = infinite and images > 0
    if batches or endless:
        return
    size = getattr(loader.batch_sampler, 'batch_size', loader.batch_size)
    mine = len(loader.sampler)  # type: ignore[arg-type]
    raise ValueError(
        f'There is no batch to train on: the data set '
        f'({type(loader.dataset).__name__}) has {images} images, of which this process '
        f'takes {mine}; batch_size={size}, drop_last={loader.drop_last}. Give a '
        f'`batch_size` of at most {mine}, drop_last=False, or more images.'
    )


def _check_categories(dataset: Any) -> None:
    """Check that the classes of a detection data set are those of its file."""
    names = first_meta(getattr(dataset, 'metainfo', None)).get('classes')
    found = getattr(dataset, 'cat_ids', None)
    if not names or not isinstance(found, list) or len(found) >= len(names):
        return
    file = getattr(dataset, 'ann_file', '')
    advice = 'Set `metainfo=dict(classes=...)` to the names that stand in the file.'
    if not found:
        raise ValueError(
            f'None of the classes {tuple(names)} is a category of {file}: no image '
            f'would have a box. {advice}'
        )
    print_log(
        f'Only {len(found)} of the {len(names)} classes {tuple(names)} are categories '
        f'of {file}. {advice}',
        logger='current',
        level=logging.WARNING,
    )


def _check_joined(dataset: Any) -> None:
    """Tell if a label has other names in the data sets that are joined."""
    found = (getattr(one, 'metainfo', None) for one in walk_wrappers(dataset))
    joined = next(filter(None, found), None)
    if not isinstance(joined, (list, tuple)):
        return
    first, *others = (first_meta(meta).get('classes') or () for meta in joined)
    differences = (first_renamed(first, other) for other in others)
    renamed = next(filter(None, differences), None)
    if renamed is None:
        return
    label, name, other_name = renamed
    print_log(
        f'The data sets that the {type(dataset).__name__} joins have different '
        f'classes: label {label} is {name!r} in the first and {other_name!r} in '
        'another. To the student it is one class, called as in the first. If only the '
        'words differ, all is well; else give all of them the same '
        '`metainfo=dict(classes=...)`.',
        logger='current',
        level=logging.WARNING,
    )


def _check_classes(dataset: Any, model: nn.Module) -> None:
    """Check that the model has an output for each class of the data set."""
    names = dataset_meta(dataset).get('classes')
    count = label_count(model)
    if not isinstance(names, (list, tuple)) or count is None or is_panoptic(model):
        return
    if len(names) in predicted_counts(model):
        return
    told = (
        f'The data set ({type(dataset).__name__}) has {len(names)} classes, the model '
        f'({type(model).__name__}) has num_classes={count}'
    )
    advice = (
        f'set num_classes={len(names)} in its head, or list the classes that are meant '
        'in `metainfo=dict(classes=...)` of the data set'
    )
    if len(names) > count:
        raise ValueError(f'{told}: {advice}.')
    if len(names) < count:
        print_log(
            f'{told}: {count - len(names)} of them are never seen. If that is not '
            f'meant, {advice}.',
            logger='current',
            level=logging.WARNING,
        )


def _check_names(model: Any, classes: Sequence[str] | None) -> None:
    """Tell if the teacher calls the classes that are compared by other names."""
    checkpoint = getattr(model, 'teacher_ckpt', None)
    if not checkpoint or not classes:
        return
    losses = class_losses(model.distiller, model.architecture, model.teacher)
    renamed = renamed_classes(checkpoint, classes, 'the data set') if losses else None
    if renamed:
        print_log(
            f'The teacher has classes of its own: {renamed}, and {", ".join(losses)} '
            'compares the predictions of student and teacher class by class. If only '
            'the words differ, all is well. If the order does, the student is taught '
            'wrong classes: give the data set the order of the checkpoint, or leave '
            'the loss out.',
            logger='current',
            level=logging.WARNING,
        )
