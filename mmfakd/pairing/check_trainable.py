# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether a student's own library can train it."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel

from .features import find_features
from .probe import CallRecorder, Probe, dummy_images


def check_trainable(model: BaseModel, probe: Probe) -> set[tuple]:
    """Take a training step of a classifier on a dummy batch.

    Some models of mmpretrain are for inference only: their heads raise when they are
    to compute a loss. Others run layers outside of autograd, which nothing can be
    learned from (reversible ones, to save memory).

    Args:
        model (BaseModel): The student, with random weights.
        probe (Probe): A probe of it.

    Returns:
        set[tuple]: ``Feature.key`` of the features that gradients flow back from.

    Raises:
        ValueError: If it cannot be trained.
    """
    if getattr(model, 'head', None) is None:
        raise ValueError(
            'it has no head, and so no loss to train it by. Choose another student; '
            'as a teacher the model will do.'
        )

    training = model.training
    model.train()
    try:
        try:
            return _step(model, probe, scores=False)
        except NotImplementedError:
            raise
        except Exception:
            # Models with several labels an image take scores.
            return _step(model, probe, scores=True)
    except Exception as error:
        raise ValueError(
            f'its own library cannot train it ({type(model.head).__name__}: '
            f'{type(error).__name__}: {str(error).strip(" .")}). Choose another '
            'student; as a teacher the model will do.'
        ) from error
    finally:
        model.zero_grad()
        model.train(training)


def _step(model: BaseModel, probe: Probe, scores: bool) -> set[tuple]:
    # An optional library.
    from mmpretrain.structures import DataSample

    count = probe.input_shape[0]
    classes = getattr(probe.output, 'shape', (count, count))[-1]
    samples = [DataSample().set_gt_label(i % classes) for i in range(count)]
    if scores:
        for sample, row in zip(samples, torch.eye(classes)):
            sample.set_gt_score(row)
    step = Probe(probe.input_shape, tokens=probe.tokens)
    with CallRecorder(model, step):
        losses = model(dummy_images(probe.input_shape), samples, mode='loss')
    model.parse_losses(losses)[0].backward()
    return {f.key for f in find_features(step) if f.info.has_graph}
