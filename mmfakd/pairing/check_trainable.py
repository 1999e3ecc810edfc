# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether a student's own library can train it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from mmfakd.models.algorithms.why_no_softmax import is_reid

from .features import find_features
from .gradient_paths import GradientPaths, learning_parameters
from .probe import (
    CallRecorder,
    Probe,
    dummy_images,
    is_detector,
    is_segmentor,
)


class Trained(NamedTuple):
    """What a training step reaches.

    Args:
        keys (set[tuple] | None): ``Feature.key`` of the features that gradients flow
            back from, to a parameter that learns; None where a detector cannot be run
            so.
        failed (str): Why there was no whole step, if so: heads then count as reached.
    """

    keys: set[tuple] | None
    failed: str = ''


def check_trainable(
    model: BaseModel, probe: Probe, cfg: Config | None = None
) -> Trained:
    """Take a training step of a student on a dummy batch.

    Some models of mmpretrain are for inference only: their heads raise when they are
    to compute a loss. Others run layers outside of autograd, which nothing can be
    learned from (reversible ones, or within a checkpointed block, to save memory), or
    have frozen parts. Of detectors, whose losses need annotations, backbone and neck
    alone are run; of a classifier, too, whose loss wants what a dummy batch has not.

    Args:
        model (BaseModel): The student, with random weights.
        probe (Probe): A probe of it.
        cfg (Config, optional): Its config, whose optimizer may leave parts as they
            are. Defaults to None.

    Returns:
        Trained: What the step reaches.

    Raises:
        ValueError: If it cannot be trained.
    """
    if is_detector(model):
        return Trained(_of_neck(model, probe, cfg))
    head = getattr(model, 'decode_head', getattr(model, 'head', None))
    if head is None:
        raise ValueError(
            'it has no head, and so no loss to train it by. Choose another student; '
            'as a teacher the model will do.'
        )

    training = model.training
    model.train()
    try:
        if is_segmentor(model):
            samples = _segmented(model, probe.input_shape)
            return Trained(_reached(model, probe, cfg, samples))
        return _of_classifier(model, probe, cfg)
    except Exception as error:
        raise ValueError(
            f'its own library cannot train it ({type(head).__name__}: '
            f'{type(error).__name__}: {str(error).strip(" .")}). Choose another '
            'student; as a teacher the model will do.'
        ) from error
    finally:
        model.zero_grad()
        model.train(training)


def _of_classifier(model: BaseModel, probe: Probe, cfg: Config | None) -> Trained:
    """Take a step of a classifier or, where its loss fails, run it up to its neck."""
    failed = ''
    # Models with several labels an image take scores.
    for scores in (False, True):
        try:
            return Trained(_reached(model, probe, cfg, _labelled(model, probe, scores)))
        except NotImplementedError:
            raise
        except Exception as error:
            failed = failed or f'{type(error).__name__}: {str(error).strip(" .")}'
    model.zero_grad()
    keys = _reached(model, probe, cfg, None)
    heads = (f for f in find_features(probe) if f.call.name.startswith('head'))
    return Trained(keys.union(f.key for f in heads), failed)


def _labelled(model: BaseModel, probe: Probe, scores: bool) -> list:
    """Data samples of a dummy batch for a classifier's loss."""
    if is_reid(model):
        # An optional library.
        from mmdet.structures import ReIDDataSample as Sample
    else:
        # Another one.
        from mmpretrain.structures import DataSample as Sample
    count = probe.input_shape[0]
    return [_sample(Sample, probe.output, i, count, scores) for i in range(count)]


def _sample(kind: type, output: Any, number: int, count: int, scores: bool) -> Any:
    """The sample of one image, with a part for each task of a model of several."""
    if isinstance(output, Mapping):
        # An optional library.
        from mmpretrain.structures import MultiTaskDataSample

        tasks = MultiTaskDataSample()
        for name, part in output.items():
            tasks.set_field(_sample(kind, part, number, count, scores), name)
        return tasks
    classes = getattr(output, 'shape', (count, count))[-1]
    sample = kind().set_gt_label(number % classes)
    if scores:
        sample.set_gt_score(torch.eye(classes)[number % classes])
    return sample


def _reached(
    model: BaseModel, probe: Probe, cfg: Config | None, samples: list | None
) -> set[tuple]:
    """Run a model as a training step does; without samples up to its neck."""
    step = Probe(probe.input_shape, tokens=probe.tokens)
    images = dummy_images(probe.input_shape)
    with CallRecorder(model, step, GradientPaths(learning_parameters(model, cfg))):
        if samples is None:
            model.extract_feat(images)
        else:
            losses = model(images, samples, mode='loss')
    if samples is not None:
        model.parse_losses(losses)[0].backward()
    return {f.key for f in find_features(step) if f.info.has_graph}


def _of_neck(model: BaseModel, probe: Probe, cfg: Config | None) -> set[tuple] | None:
    training = model.training
    model.train()
    try:
        return _reached(model, probe, cfg, None)
    except Exception:
        # Of one image's batch norm, or an operator of GPUs.
        return None
    finally:
        model.train(training)


def _segmented(model: BaseModel, shape: tuple[int, ...]) -> list:
    """Data samples of a dummy batch for a segmentor's loss."""
    # An optional library.
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    count, _, *size = shape
    classes = torch.arange(size[0] * size[1]).view(1, *size) % model.num_classes
    # Some heads learn the edges of the classes, too.
    edges = (classes == 0).long()
    info = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), tuple(size))
    return [
        SegDataSample(
            metainfo=info,
            gt_sem_seg=PixelData(data=classes),
            gt_edge_map=PixelData(data=edges),
        )
        for _ in range(count)
    ]
