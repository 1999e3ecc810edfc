# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The student of a checkpoint, built, and what of it is exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.load import load_weights
from mmfakd.checkpoints.state_dict import find_state_dict
from mmfakd.checkpoints.student import (
    export_student,
    student_config,
    student_state_dict,
)
from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.find import config_file
from mmfakd.model_zoo.read_config import read_config
from mmfakd.pairing.probe import is_classifier, is_detector, is_segmentor

MMDEPLOY = 'https://github.com/open-mmlab/mmdeploy'
# Parts of detectors with two stages, of those with queries, and of those with masks.
_MORE_THAN_A_HEAD = ('rpn_head', 'roi_head', 'encoder', 'decoder', 'mask_head')


@dataclass
class Student:
    """A student to be exported.

    Args:
        model (BaseModel): The model, in evaluation mode.
        cfg (Config): The config of the stock student.
        meta (dict): What its checkpoint says: ``dataset_meta`` and the like.
        task (str): ``'classification'``, ``'detection'`` or ``'segmentation'``.
    """

    model: BaseModel
    cfg: Config
    meta: dict[str, Any]
    task: str


def load_student(checkpoint: str, config: str | None = None) -> Student:
    """Build the student of a checkpoint with its weights.

    Args:
        checkpoint (str): Of a distillation, an exported student or a plain model: path,
            URL or model-zoo name.
        config (str, optional): Config of the student or of its distillation, which is
            run. Defaults to None: the text in the checkpoint, which is not.

    Returns:
        Student: The student.

    Raises:
        ValueError: If there is no config, weights do not fit, or the model is none that
            can be exported.
    """
    loaded = fetch_checkpoint(checkpoint)
    distilled = student_state_dict(find_state_dict(loaded, checkpoint))
    meta = dict((export_student(loaded) if distilled else loaded).get('meta') or {})
    if config is not None:
        cfg = read_config(config_file(config))
    elif meta.get('cfg'):
        cfg = read_config_text(meta['cfg'])
    else:
        raise ValueError(
            f'{checkpoint}: it says nothing of its model. Give the config of the '
            'student, or of its distillation: --config my_config.py.'
        )
    if 'architecture' in (cfg.get('model') or {}):
        cfg = student_config(cfg, files=config is not None)
    if 'model' not in cfg:
        raise ValueError(f'{config or checkpoint}: the config has no model.')
    if cfg.get('data_preprocessor') and not cfg.model.get('data_preprocessor'):
        cfg.model.data_preprocessor = cfg.data_preprocessor
    scope = cfg.get('default_scope')
    model = build_without_weights(cfg.model, scope, trusted=config is not None)
    load_weights(model, checkpoint, 'student')
    model.requires_grad_(False)
    return Student(model.eval(), cfg, meta, _task(model))


class RawOutputs(nn.Module):
    """A model from normalised images to what its head yields, as a flat tuple.

    Args:
        student (Student): The student.

    Attributes:
        names (list[str]): Name of each output, known once it has run.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.model = student.model
        self.names: list[str] = []
        self._heads = _output_names(student)
        self._classifies = student.task == 'classification'

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run it.

        Args:
            images (Tensor): Normalised images (N, C, H, W).

        Returns:
            tuple[Tensor, ...]: Logits of a classifier, (N, classes); raw maps of a
            detector's or segmentor's head, (N, channels, h, w) each.
        """
        outputs = self.model(images, None, mode='tensor')
        if not isinstance(outputs, (tuple, list, Mapping)):
            outputs = (outputs,)
        parts = outputs.values() if isinstance(outputs, Mapping) else outputs
        heads = outputs if isinstance(outputs, Mapping) else self._heads
        names = _all_names(heads, len(parts))
        flat = [pair for both in zip(names, parts) for pair in _flattened(*both)]
        self.names = [name for name, _ in flat]
        tensors = (tensor for _, tensor in flat)
        if self._classifies:
            # Networks that squeeze, as LeNet-5 does, lose the batch of a single image.
            lost = (x.dim() == 1 and len(x) != len(images) for _, x in flat)
            tensors = (x[None] if one else x for one, x in zip(lost, tensors))
        return tuple(tensors)


def _task(model: BaseModel) -> str:
    """What kind of model it is, or why it is not exported."""
    if is_classifier(model):
        return 'classification'
    # Others suppress boxes on the way, or want more than images.
    if is_detector(model) and hasattr(model, 'bbox_head'):
        if all(getattr(model, name, None) is None for name in _MORE_THAN_A_HEAD):
            return 'detection'
    elif is_segmentor(model) and hasattr(model, 'encode_decode'):
        return 'segmentation'
    raise ValueError(cannot_be_traced(model))


def cannot_be_traced(model: BaseModel) -> str:
    """Say that a model is not exported, and what does it.

    Args:
        model (BaseModel): The model.

    Returns:
        str: The message.
    """
    return (
        f'a {type(model).__name__} runs in no way that can be traced as it is: '
        'classifiers, one-stage detectors and segmentors do. For others there is '
        f'mmdeploy ({MMDEPLOY}), which takes the file of `mmfakd export -o student.pth '
        '--config-out student.py`.'
    )


def binary_threshold(model: BaseModel) -> float | None:
    """Read above which score a pixel is of the class, where a segmentor has but one.

    Args:
        model (BaseModel): The model.

    Returns:
        float | None: The threshold of the sigmoid of its one channel; None for other
        models.
    """
    head: Any = getattr(model, 'decode_head', None)
    one = getattr(head, 'out_channels', None) == 1
    # The one channel of mmseg's DepthEstimator is no score.
    binary = one and type(model).__name__ != 'DepthEstimator'
    return getattr(head, 'threshold', None) if binary else None


def input_channels(model: BaseModel) -> int | None:
    """Read how many channels images have off the first convolution.

    Args:
        model (BaseModel): The model.

    Returns:
        int | None: The channels; None where the backbone has no convolution.
    """
    modules = getattr(model, 'backbone', model).modules()
    return next((m.in_channels for m in modules if isinstance(m, nn.Conv2d)), None)


def _output_names(student: Student) -> list[str]:
    """What the head calls its outputs, in its own next step."""
    if student.task == 'classification':
        return ['logits']
    if student.task == 'segmentation':
        return ['seg_logits']
    head: Any = student.model.bbox_head
    return list(signature(head.predict_by_feat).parameters)


def _all_names(names: Any, count: int) -> list[str]:
    found = list(names)
    return found if len(found) >= count else [f'output_{i}' for i in range(count)]


def _flattened(name: str, part: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield name, part
    elif isinstance(part, (tuple, list)):
        for i, one in enumerate(part):
            yield from _flattened(f'{name}_{i}', one)
