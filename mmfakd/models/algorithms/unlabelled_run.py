# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A student that is recorded, and whose own loss does not count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules.recorder import ParameterRecorder
from torch import Tensor, nn

from mmfakd.models.distillers.any_distiller import missing_records

from .run_mode import MODES, evaluation, run_model, shallowest_mode

# What a model raises that has no such mode, or finds no label where it looks for one.
_NOT_SO = (AttributeError, KeyError, TypeError, NotImplementedError, AssertionError)


class UnlabelledRun:
    """Run a student as deep as its recorders need, so that images need no labels.

    Its own loss, the only thing that labels are for, is not computed: features are
    recorded from ``backbone`` or ``extract_feat``, predictions in mode ``'tensor'``.
    Only what nothing but a loss calls, ``head.loss_module`` for example, is recorded in
    mode ``'loss'``, and then labels are needed.

    The mode is found at the first step by runs in evaluation mode, which change
    neither running statistics nor random numbers.

    Args:
        tell (bool): Whether to log which mode it is. Defaults to True.
    """

    def __init__(self, tell: bool = True) -> None:
        self.mode: str | None = None
        self._tell = tell

    def __call__(
        self,
        student: BaseModel,
        distiller: ConfigurableDistiller,
        inputs: Tensor,
        data_samples: list | None,
    ) -> None:
        """Run the student; the recorders and deliveries are on.

        Args:
            student (BaseModel): The student.
            distiller (ConfigurableDistiller): The distiller that records.
            inputs (Tensor): The batch (N, C, H, W).
            data_samples (list, optional): Its N data samples.

        Raises:
            ValueError: If the images have no labels, and the recorded layers run in
                no mode without.
        """
        if self.mode is None:
            self.mode = _find_mode(student, distiller, inputs, data_samples)
            if self._tell:
                print_log(f'The student runs in mode {self.mode!r}.', logger='current')
        if self.mode == MODES[-1] and not all(map(_is_labelled, data_samples or ())):
            recorders = distiller.student_recorders.recorders.values()
            raise ValueError(
                'The images of the batch have no labels, but of the recorded layers '
                f'{[r.source for r in recorders]} some run in the loss of the student '
                "alone. Record layers of `backbone` or `neck`, or a classifier's "
                "logits ('head.fc'), which need no labels."
            )
        run_model(student, self.mode, inputs, data_samples)


def mark_unlabelled(preprocessor: nn.Module) -> None:
    """Let a data preprocessor take images without labels as it takes others.

    mmpretrain's mixes only images that have scores, and says nothing; some of mmdet's
    batch augments fail without boxes. Samples without labels get zero scores, or no
    boxes, and a note in their ``metainfo``, so that nobody takes these for labels.

    Args:
        preprocessor (nn.Module): The student's data preprocessor.
    """
    preprocessor.register_forward_pre_hook(_mark, with_kwargs=True)


def refuse_unlabelled(error: Exception, data_samples: Sequence[Any] | None) -> None:
    """Say that images have no labels, if they have none, where a model failed.

    Args:
        error (Exception): What the loss of the student raised.
        data_samples (Sequence, optional): The data samples of the batch.

    Raises:
        ValueError: If no sample has anything of a ground truth.
    """
    if any(map(_is_labelled, data_samples or ())):
        return
    raise ValueError(
        f'The images of the batch have no labels ({type(error).__name__}: {error}), '
        "but the student's own loss needs them. To distil on images without labels, "
        'set `calculate_student_loss=False`; else load the labels.'
    ) from error


def _is_labelled(sample: Any) -> bool:
    """Whether a data sample has a class, score, box or mask of a ground truth."""
    keys = sample.keys() if hasattr(sample, 'keys') else ()
    found = [sample.get(key) for key in keys if key.startswith('gt_')]
    # mmdet packs instances of nothing where a pipeline loads no annotations.
    return not getattr(sample, 'metainfo', {}).get('unlabelled') and any(
        not hasattr(truth, 'keys') or len(truth.keys()) > 0 for truth in found
    )


def _mark(module: nn.Module, args: tuple, kwargs: dict) -> None:
    """Mark the samples of one batch, as a hook before the preprocessor."""
    # mmpretrain's SwitchRecipeHook may set others at any time.
    mixes = getattr(module, 'batch_augments', None) is not None
    scores = (getattr(module, 'num_classes', None) or 1) if mixes else None
    data = args[0] if args else kwargs.get('data')
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    for sample in samples or ():
        if not hasattr(sample, 'set_metainfo') or _is_labelled(sample):
            continue
        sample.set_metainfo(dict(unlabelled=True))
        truth = sample.get('gt_instances')
        if truth is not None:
            truth.bboxes = torch.zeros(0, 4)
            truth.labels = torch.zeros(0, dtype=torch.long)
        elif scores is not None and hasattr(sample, 'set_gt_score'):
            sample.set_gt_score(torch.zeros(scores))


def _find_mode(
    student: BaseModel,
    distiller: ConfigurableDistiller,
    inputs: Tensor,
    data_samples: list | None,
) -> str:
    """Find the shallowest mode that feeds every recorder of the student."""
    manager = distiller.student_recorders
    start = MODES.index(shallowest_mode(student, manager))
    cuda = [inputs.device] if inputs.device.type == 'cuda' else []
    deliveries = distiller.deliveries.deliveries.values()
    for mode in MODES[start:-1]:
        with torch.no_grad(), torch.random.fork_rng(cuda), evaluation(student):
            queues = [delivery.data_queue.copy() for delivery in deliveries]
            try:
                run_model(student, mode, inputs, data_samples)
                found = not missing_records(distiller, from_student=True)
            except (*_NOT_SO, IndexError):
                found = False
            for delivery, queue in zip(deliveries, queues):
                delivery.data_queue = queue
            for recorder in manager.recorders.values():
                # That of parameters holds them all the time; the others' wrappers hold
                # the list itself, so it stays.
                if not isinstance(recorder, ParameterRecorder):
                    recorder.data_buffer.clear()
            # Of weights that older PyTorch casts here, the step would get no gradients.
            torch.clear_autocast_cache()
        if found:
            return mode
    return MODES[-1]
