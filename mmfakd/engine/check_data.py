# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is wrong with the data of a training, told before its first step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import InfiniteSampler
from torch import nn
from torch.utils.data import SequentialSampler

from mmfakd.checkpoints.class_names import (
    first_renamed,
    listed_names,
    renamed_classes,
)
from mmfakd.checkpoints.first_meta import first_meta
from mmfakd.datasets.wrappers import (
    dataset_meta,
    length_of,
    read_datasets,
    walk_wrappers,
)
from mmfakd.models.algorithms.built_models import whole_from
from mmfakd.models.algorithms.check_batches import label_count
from mmfakd.models.algorithms.check_class_counts import class_losses
from mmfakd.models.algorithms.count_classes import is_panoptic, predicted_counts

from .check_last_batch import check_last_batch


def check_data(
    loader: Any, model: nn.Module, iterations: float = math.inf
) -> list[str]:
    """Check a loader of training batches against the model that they are for.

    Args:
        loader (DataLoader): The loader.
        model (nn.Module): A distillation, or a plain model.
        iterations (float): Batches that the training takes. Defaults to infinity: the
            last batch of an epoch is reached.

    Returns:
        list[str]: What is doubtful.

    Raises:
        ValueError: If there is no batch, one of too few images, or classes do not fit.
    """
    check_length(loader)
    told = [_tell_order(loader)]
    distiller = getattr(model, 'distiller', None)
    if distiller is not None:
        told.append(check_last_batch(loader, distiller, iterations))
    # Of a data set without labels nothing of them is asked.
    if getattr(model, 'calculate_student_loss', True):
        told += map(_tell_categories, read_datasets(loader.dataset))
        told.append(_tell_joined(loader.dataset))
    told.append(_tell_classes(loader.dataset, getattr(model, 'architecture', model)))
    return [text for text in told if text]


def check_length(loader: Any) -> None:
    """Refuse a loader without a batch.

    Args:
        loader (DataLoader): The loader of training batches.

    Raises:
        ValueError: If its data set is too small, or has no images.
    """
    images, batches = length_of(loader.dataset), length_of(loader)
    if images is None or batches is None:
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
    mine = length_of(loader.sampler)
    # A stream with a length has a sampler without.
    mine = images if mine is None else mine
    raise ValueError(
        f'There is no batch to train on: the data set '
        f'({type(loader.dataset).__name__}) has {images} images, of which this process '
        f'takes {mine}; batch_size={size}, drop_last={loader.drop_last}. Give a '
        f'`batch_size` of at most {mine}, drop_last=False, or more images.'
    )


def _tell_order(loader: Any) -> str:
    """Tell of images that come in the order of the data set in every epoch."""
    # Where there is a sampler of batches, that of the loader is none.
    batches = getattr(loader, 'batch_sampler', None)
    sampler, size = getattr(batches, 'sampler', None), getattr(batches, 'batch_size', 0)
    in_order = isinstance(sampler, SequentialSampler)
    if not in_order and getattr(sampler, 'shuffle', True) is not False:
        return ''
    images = length_of(loader.dataset)
    # One batch of all, as whoever tries to overfit it has, is none of that.
    if images is None or not isinstance(size, int) or images <= size:
        return ''
    return (
        f'Training images come in the order of the data set in every epoch '
        f'({type(sampler).__name__}, shuffle=False). Where classes or scenes follow '
        'one another, a batch has one of them alone, and little is learned from it. If '
        "that is not meant: train_dataloader.sampler=dict(type='DefaultSampler', "
        'shuffle=True).'
    )


def check_validation(loader: Any, classes: Sequence[str] | None) -> list[str]:
    """Check a loader of validation batches, whose scores nobody could trust.

    Args:
        loader (DataLoader): The loader.
        classes (Sequence[str], optional): Names of the training set's classes; None
            where its labels are not used, or are no classes of the validation.

    Returns:
        list[str]: What is doubtful.

    Raises:
        ValueError: If its data set has no images, or no class that its file knows.
    """
    dataset = getattr(loader, 'dataset', None)
    if length_of(dataset) == 0:
        raise ValueError(
            f'There is nothing to validate on: the data set of val_dataloader '
            f'({type(dataset).__name__}) has 0 images. Check its files and what it '
            'leaves out (`ann_file`, `data_prefix`, `indices`, `filter_cfg`), or train '
            'with --no-validate.'
        )
    told = [*map(_tell_categories, read_datasets(dataset))]
    told.append(_tell_validated(dataset, classes))
    return [text for text in told if text]


def _tell_validated(dataset: Any, classes: Sequence[str] | None) -> str:
    """Tell if labels are other classes in the validation than in the training set."""
    trained = listed_names(classes)
    own = listed_names(dataset_meta(dataset).get('classes'))
    renamed = first_renamed(trained, own)
    kind = type(dataset).__name__
    if renamed is not None:
        label, name, other = renamed
        return (
            f'Label {label} is {name!r} in the training set ({len(trained)} classes) '
            f'and {other!r} in the validation set ({kind}, {len(own)} classes). Scores '
            'compare labels. If only the words differ, all is well; else they are '
            'wrong: give both the same `metainfo=dict(classes=...)`. Where folders are '
            'classes, one that is missing moves the labels of those behind it: make '
            'it, though it stays empty.'
        )
    if trained and len(own) > len(trained):
        return (
            f'The validation set ({kind}) has {len(own)} classes, the training set '
            f'{len(trained)}: images of {own[len(trained)]!r} and others that are not '
            'trained always count as wrong.'
        )
    return ''


def _tell_categories(dataset: Any) -> str:
    """Check that the classes of a detection data set are those of its file."""
    names = first_meta(getattr(dataset, 'metainfo', None)).get('classes')
    found = getattr(dataset, 'cat_ids', None)
    # Each letter of a text may be a name.
    if names is None or not isinstance(found, list) or len(found) >= len(names):
        return ''
    file = getattr(dataset, 'ann_file', '')
    advice = 'Set `metainfo=dict(classes=...)` to the names that stand in the file.'
    listed = (names,) if isinstance(names, str) else tuple(names)
    if not found:
        raise ValueError(
            f'None of the classes {listed} is a category of {file}: no image would '
            f'have a box. {advice}'
        )
    if isinstance(names, str):
        return (
            f'The classes of the {type(dataset).__name__} are a text, {names!r}, which '
            f'counts as one name a letter. Is a comma missing? Give {listed}. {advice}'
        )
    return (
        f'Only {len(found)} of the {len(names)} classes {listed} are categories of '
        f'{file}. {advice}'
    )


def _tell_joined(dataset: Any) -> str:
    """Tell if a label has other names in the data sets that are joined."""
    found = (getattr(one, 'metainfo', None) for one in walk_wrappers(dataset))
    joined = next(filter(None, found), None)
    if not isinstance(joined, (list, tuple)):
        return ''
    first, *others = (first_meta(meta).get('classes') or () for meta in joined)
    differences = (first_renamed(first, other) for other in others)
    renamed = next(filter(None, differences), None)
    if renamed is None:
        return ''
    label, name, other_name = renamed
    return (
        f'The data sets that the {type(dataset).__name__} joins have different '
        f'classes: label {label} is {name!r} in the first and {other_name!r} in '
        'another. To the student it is one class, called as in the first. If only the '
        'words differ, all is well; else give all of them the same '
        '`metainfo=dict(classes=...)`.'
    )


def _tell_classes(dataset: Any, model: nn.Module) -> str:
    """Check that the model has an output for each class of the data set."""
    names = dataset_meta(dataset).get('classes')
    count = label_count(model)
    if not isinstance(names, (list, tuple)) or count is None or is_panoptic(model):
        return ''
    if len(names) in predicted_counts(model):
        return ''
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
    if len(names) == count:
        return ''
    return (
        f'{told}: {count - len(names)} of them are never seen. If that is not meant, '
        f'{advice}.'
    )


def teacher_checkpoint(model: Any, cfg: Mapping | None = None) -> str | None:
    """Name the checkpoint that a teacher as a whole comes from.

    Args:
        model (Any): A distillation, or a plain model.
        cfg (Mapping, optional): Its config. mmrazor's algorithms do not keep what it
            gives as ``teacher_ckpt``.

    Returns:
        str | None: A path, URL or model-zoo name, if there is one.
    """
    teacher = getattr(model, 'teacher', None)
    # Models of semi-supervised learning have a teacher, too.
    distils = isinstance(getattr(model, 'distiller', None), nn.Module)
    if not distils or not isinstance(teacher, nn.Module):
        return None
    given = cfg.get('teacher_ckpt') if isinstance(cfg, Mapping) else None
    return getattr(model, 'teacher_ckpt', given) or whole_from(teacher)


def tell_names(
    model: Any, classes: Sequence[str] | None, cfg: Mapping | None = None
) -> str:
    """Tell if the teacher calls the classes that are compared by other names.

    Args:
        model (Any): A distillation, or a plain model.
        classes (Sequence[str], optional): Names of the classes of the data set.
        cfg (Mapping, optional): Config of the distillation.

    Returns:
        str: What differs, and what that does; '' if nothing is compared or differs.
    """
    checkpoint = teacher_checkpoint(model, cfg)
    if not checkpoint or not classes:
        return ''
    losses = class_losses(model.distiller, model.architecture, model.teacher)
    renamed = renamed_classes(checkpoint, classes, 'the data set') if losses else None
    if not renamed:
        return ''
    return (
        f'The teacher has classes of its own: {renamed}, and {", ".join(losses)} '
        'compares the predictions of student and teacher class by class. If only the '
        'words differ, all is well. If the order does, the student is taught wrong '
        'classes: give the data set the order of the checkpoint, or leave the loss out.'
    )
