# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Losses that need one class an image refuse images of several, or of none.

CRD, which tells each image from those of other classes, takes scores of several, but no
mixed images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.losses import WSLD, CRDLoss, DKDLoss
from torch import Tensor, nn

from mmfakd.compat.running_loop import first_stop
from mmfakd.model_zoo.type_names import type_name
from mmfakd.models.losses import NKDLoss
from mmfakd.models.losses.nkd_loss import IGNORED
from mmfakd.ops.compiling import is_compiling

from .check_batches import image_name

_ONE_CLASS = (NKDLoss, DKDLoss, WSLD)
# A mixed image is none of those whose embeddings CRD keeps.
_UNMIXED = (*_ONE_CLASS, CRDLoss)
# They fail at a label to ignore; on GPUs that ends the process.
_INDEXING = (DKDLoss, WSLD)
# Scores of a smoothed label are equal but for the label's.
_EQUAL = 1e-3


def check_one_class(distiller: ConfigurableDistiller, student: nn.Module) -> None:
    """Check that losses of one class an image get no others.

    Args:
        distiller (ConfigurableDistiller): The distiller.
        student (nn.Module): The student, whose preprocessor gets a hook that looks at
            the batches of training, as far as they lie on the CPU.

    Raises:
        ValueError: If there is such a loss (NKD, DKD, WSLD, CRD), and the student's
            batch augments mix classes; in each step of training if they do by then, an
            image has scores of several classes (but for CRD), or a label to ignore
            that the loss cannot leave out, as long as distillation is not stopped (an
            attribute ``distillation_stopped`` of the preprocessor).
    """
    found = _losses(distiller)
    preprocessor = getattr(student, 'data_preprocessor', None)
    if not found or not isinstance(preprocessor, nn.Module):
        return
    refuse_mixing(next(iter(found)), student, f'the student ({type(student).__name__})')
    one_class, indexing = (
        next((name for name, part in found.items() if isinstance(part, kinds)), None)
        for kinds in (_ONE_CLASS, _INDEXING)
    )
    preprocessor.register_forward_pre_hook(
        partial(_check, next(iter(found)), one_class, indexing), with_kwargs=True
    )


def refuse_mixing(owner: str, student: nn.Module, name: str) -> None:
    """Refuse a student whose batch augments mix the classes of images.

    Args:
        owner (str): What needs one class an image, for the message.
        student (nn.Module): The student.
        name (str): Its name, for the message.

    Raises:
        ValueError: If they do.
    """
    preprocessor = getattr(student, 'data_preprocessor', None)
    _refuse(owner, getattr(preprocessor, 'batch_augments', None), name)


def refuse_later_mixing(owner: str, hooks: Iterable[Any], epochs: int | None) -> None:
    """Refuse hooks that switch to batch augments which mix, as SwitchRecipeHook does.

    Args:
        owner (str): What needs one class an image, for the message.
        hooks (Iterable): The hooks of a training, built or their configs.
        epochs (int, optional): Epochs of the training, None where that is not known.

    Raises:
        ValueError: If a hook would before the training ends.
    """
    for hook in hooks:
        is_config = isinstance(hook, Mapping)
        kind = type_name(hook) if is_config else type(hook).__name__
        schedule = (
            hook.get('schedule') if is_config else getattr(hook, 'schedule', None)
        )
        for epoch, recipe in _recipes(schedule):
            if epochs is None or epoch <= epochs:
                name = f'the hook {kind} (`schedule`, from epoch {epoch})'
                _refuse(owner, recipe.get('batch_augments'), name)


def check_later_mixing(
    distiller: ConfigurableDistiller, hooks: Iterable[Any], epochs: int | None
) -> None:
    """Check that losses of one class an image get no others later on.

    Args:
        distiller (ConfigurableDistiller): The distiller.
        hooks (Iterable): The hooks of its training.
        epochs (int, optional): Epochs of the training, None where that is not known.

    Raises:
        ValueError: If there is such a loss, and a hook switches to batch augments that
            mix classes, before another one stops the distillation.
    """
    hooks = list(hooks)
    # Both say the last epoch that is distilled, counted from 1 as those of recipes.
    stop = first_stop(hooks)
    ends = [end for end in (epochs, stop and stop[1]) if end is not None]
    for owner in list(_losses(distiller))[:1]:
        refuse_later_mixing(owner, hooks, min(ends, default=None))


def _losses(distiller: ConfigurableDistiller) -> dict[str, nn.Module]:
    """The losses that take no mixed image, under what messages call them."""
    return {
        f'{name}: {type(part).__name__}': part
        for name, loss in distiller.distill_losses.items()
        for part in loss.modules()
        if isinstance(part, _UNMIXED)
    }


def _recipes(schedule: Any) -> Iterator[tuple[int, Mapping]]:
    """What is switched to, by epoch: of mmpretrain's built hook, or of its config."""
    if isinstance(schedule, Mapping):
        found = list(schedule.items())
    elif isinstance(schedule, (list, tuple)):
        recipes = (recipe for recipe in schedule if isinstance(recipe, Mapping))
        found = [(recipe.get('action_epoch', 0), recipe) for recipe in recipes]
    else:
        found = []
    for epoch, recipe in found:
        # A hook of one's own may call something else its schedule.
        is_recipe = isinstance(recipe, Mapping) and 'batch_augments' in recipe
        if is_recipe and isinstance(epoch, int):
            yield epoch, recipe


def _refuse(owner: str, augments: Any, name: str) -> None:
    # Those of detectors and segmentors are modules, which resize and pad.
    if augments is None or isinstance(augments, nn.Module):
        return
    raise ValueError(
        f'{owner} needs one class an image, and the batch augments of {name} (mixup or '
        "the like) mix classes. Use kd or dist (mmrazor's KLDivergence or DISTLoss), "
        'or a student without them.'
    )


def _check(
    owner: str,
    one_class: str | None,
    indexing: str | None,
    module: nn.Module,
    args: tuple,
    kwargs: dict,
) -> None:
    """Check one batch, as a hook before the preprocessor."""
    # A compiled step is not to be cut into more graphs. What is not distilled any more
    # may be mixed.
    if is_compiling() or getattr(module, 'distillation_stopped', False):
        return
    data, training = ((*args, kwargs.get('training', False))[:2]) if args else ({}, 0)
    samples: Any = data.get('data_samples') if isinstance(data, Mapping) else None
    if not training or not isinstance(samples, (list, tuple)):
        return
    # A hook may have set them in the course of the training.
    _refuse(owner, getattr(module, 'batch_augments', None), 'the student')
    for i in _mixed(_on_cpu(samples, 'gt_score')) if one_class else ():
        raise ValueError(
            f'{one_class} needs one class an image. {image_name(samples[i])} has a '
            '`gt_score` of several: a mix that the data pipeline made, or labels of '
            "several people. Use kd or dist (mmrazor's KLDivergence or DISTLoss), or "
            'scores of one class, which may be smoothed.'
        )
    labels = _on_cpu(samples, 'gt_label') if indexing else {}
    # All at once, as each look at a tensor costs some microseconds.
    if not labels or IGNORED not in torch.cat([x.flatten() for x in labels.values()]):
        return
    ignored = next(i for i, label in labels.items() if IGNORED in label)
    raise ValueError(
        f'{indexing} cannot leave out an image. {image_name(samples[ignored])} has the '
        f'label {IGNORED}, which counts for nothing. Use mmfakd.NKDLoss, kd or dist '
        "(mmrazor's KLDivergence or DISTLoss), or take such images out of the data set."
    )


def _on_cpu(samples: Sequence[Any], field: str) -> dict[int, Tensor]:
    """A field of those samples that have it, and on the CPU."""
    fields = ((i, s.get(field)) for i, s in enumerate(samples) if hasattr(s, 'get'))
    return {
        i: value
        for i, value in fields
        if isinstance(value, Tensor) and value.device.type == 'cpu'
    }


def _mixed(scores: dict[int, Tensor]) -> list[int]:
    """Which images have more than one class above the floor that all others share."""
    wide = {i: score for i, score in scores.items() if score.numel() > 2}
    if not wide:
        return []
    rows = torch.stack([score.flatten().float() for score in wide.values()])
    mixed = rows.topk(2, dim=1).values[:, 1] > rows.amin(1) + _EQUAL
    return [i for i, more in zip(wide, mixed.tolist()) if more]
