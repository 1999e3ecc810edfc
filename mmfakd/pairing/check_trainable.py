# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether a student's own library can train it."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from .features import find_features
from .gradient_paths import GradientPaths, learning_parameters
from .probe import CallRecorder, Probe, dummy_images, is_detector, is_segmentor


def check_trainable(
    model: BaseModel, probe: Probe, cfg: Config | None = None
) -> set[tuple] | None:
    """Take a training step of a student on a dummy batch.

    Some models of mmpretrain are for inference only: their heads raise when they are
    to compute a loss. Others run layers outside of autograd, which nothing can be
    learned from (reversible ones, or within a checkpointed block, to save memory), or
    have frozen parts. Of detectors, whose losses need annotations, backbone and neck
    alone are run.

    Args:
        model (BaseModel): The student, with random weights.
        probe (Probe): A probe of it.
        cfg (Config, optional): Its config, whose optimizer may leave parts as they
            are. Defaults to None.

    Returns:
        set[tuple] | None: ``Feature.key`` of the features that gradients flow back
        from, to a parameter that learns; None where a detector cannot be run so.

    Raises:
        ValueError: If it cannot be trained.
    """
    if is_detector(model):
        return _of_neck(model, probe, cfg)
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
            return _reached(model, probe, cfg, _segmented(model, probe.input_shape))
        try:
            return _step(model, probe, cfg, scores=False)
        except NotImplementedError:
            raise
        except Exception:
            # Models with several labels an image take scores.
            return _step(model, probe, cfg, scores=True)
    except Exception as error:
        raise ValueError(
            f'its own library cannot train it ({type(head).__name__}: '
            f'{type(error).__name__}: {str(error).strip(" .")}). Choose another '
            'student; as a teacher the model will do.'
        ) from error
    finally:
        model.zero_grad()
        model.train(training)


def _step(
    model: BaseModel, probe: Probe, cfg: Config | None, scores: bool
) -> set[tuple]:
    # An optional library.
    from mmpretrain.structures import DataSample

    count = probe.input_shape[0]
    classes = getattr(probe.output, 'shape', (count, count))[-1]
    samples = [DataSample().set_gt_label(i % classes) for i in range(count)]
    if scores:
        for sample, row in zip(samples, torch.eye(classes)):
            sample.set_gt_score(row)
    return _reached(model, probe, cfg, samples)


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
