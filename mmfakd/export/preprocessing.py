# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What has to be done to an image before an exported model sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmfakd.datasets.wrappers import (
    pipeline_of,
    type_name,
    walk_loaders,
    walk_wrappers,
)
from mmfakd.models.algorithms.normalisation import RAW, read_normalisation
from mmfakd.pairing.input_size import InputSize, read_input_size

from .student_model import Student

# Their arrays are RGB, as are those of everyone who publishes them.
_RGB_ARRAYS = ('CIFAR10', 'CIFAR100')
_TURNED = dict(RGB='BGR', BGR='RGB')
AS_LOADED = 'as in the data set'


def describe_preprocessing(
    cfg: Config, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Read from a student's config how its images are made.

    Args:
        cfg (Config): The config of the student.
        size (tuple[int, int], optional): Height and width of the images. Defaults to
            None: those of its test pipeline, or, where that leaves them alone, of its
            training pipeline.

    Returns:
        dict: ``layout``, ``dtype``, ``value_range`` before normalisation,
        ``channel_order`` (``'RGB'``, ``'BGR'``, ``'grey'``, or that of the data set),
        ``mean`` and ``std``, one a channel, ``image_size`` as height and width, or as
        short and long side where images keep their ratio (``keep_ratio``),
        ``input_size`` of what is padded to multiples of ``size_divisor``, and the
        config's own ``test_pipeline`` as it stands there.

    Raises:
        ValueError: If the config says no size, or images are neither grey nor coloured.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    normalisation = {**RAW, **read_normalisation(preprocessor, 'student')}
    mean, std = (normalisation[key].flatten().tolist() for key in ('mean', 'std'))
    channels = max(len(mean), len(std))
    if channels == 1 and normalisation['mean'] is RAW['mean']:
        channels = 3
    mean, std = (x * channels if len(x) == 1 else x for x in (mean, std))
    if channels not in (1, 3):
        raise ValueError(
            f'its images have {channels} channels, and no picture shows whether the '
            'export computes the same: export a .pth file.'
        )
    divisor = preprocessor.get('pad_size_divisor', 1)
    found = _read_size(cfg)
    if size is None and found is None:
        raise ValueError(
            'no transform in its config says how large its images are: give '
            '--input-size HEIGHTxWIDTH.'
        )
    height, width = size or (found.height, found.width)  # type: ignore[union-attr]
    return dict(
        layout='NCHW',
        dtype='float32',
        value_range=[0, 255],
        channel_order=_order(cfg, channels, normalisation['swap']),
        mean=mean,
        std=std,
        image_size=[height, width],
        keep_ratio=found is not None and not found.fixed,
        input_size=[_padded(height, divisor), _padded(width, divisor)],
        size_divisor=divisor,
        test_pipeline=list(_test_pipeline(cfg)),
    )


def prepare(image: np.ndarray, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Make an input of an image, as the description says.

    Args:
        image (np.ndarray): (H, W, 3), BGR, of 8 bits, as OpenCV reads files.
        preprocessing (Mapping): What :func:`describe_preprocessing` returned.

    Returns:
        np.ndarray: (1, C, height, width), float32.
    """
    height, width = preprocessing['input_size']
    image = cv2.resize(image, (width, height))
    if preprocessing['channel_order'] == 'grey':
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
    elif preprocessing['channel_order'] != 'BGR':
        image = image[..., ::-1]
    mean, std = (np.float32(preprocessing[key]) for key in ('mean', 'std'))
    scaled = (image.astype(np.float32) - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)


def check_preprocessing(
    student: Student, preprocessing: Mapping[str, Any], image: np.ndarray
) -> None:
    """Compare the description with what the model's own preprocessor does.

    Args:
        student (Student): The student.
        preprocessing (Mapping): The description.
        image (np.ndarray): An image (H, W, 3), BGR.

    Raises:
        ValueError: If they differ.
    """
    expected = prepare(image, preprocessing)
    raw = prepare(image, {**preprocessing, 'mean': [0.0], 'std': [1.0]})[0]
    preprocessor = student.cfg.model.get('data_preprocessor') or {}
    if read_normalisation(preprocessor, 'student').get('swap'):
        # What the preprocessor turns round is given the other way round.
        raw = raw[::-1].copy()
    batch = dict(inputs=[torch.from_numpy(raw)])
    found = student.model.data_preprocessor(batch, False)['inputs'].cpu().numpy()
    if found.shape != expected.shape or np.abs(found - expected).max() > 1e-3:
        raise ValueError(
            f'the {type(student.model.data_preprocessor).__name__} of the student does '
            'more than to subtract a mean and divide by a deviation, which cannot be '
            f'stated in the file: it made {found.shape} of an image that should have '
            f'become {expected.shape}, apart by up to '
            f'{np.abs(found.mean() - expected.mean()):.3g}. Export a .pth file.'
        )


def _test_pipeline(cfg: Config) -> Iterator[dict]:
    """The transforms of test images, as the config has them."""
    for loader in walk_loaders(cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        for dataset in walk_wrappers(loader.get('dataset')):
            if pipeline_of(dataset):
                yield from (_plain(t) for t in pipeline_of(dataset))
                return


def _plain(transform: Any) -> Any:
    """A transform as plain values, for JSON."""
    if isinstance(transform, Mapping):
        return {key: _plain(value) for key, value in transform.items()}
    if isinstance(transform, (list, tuple)):
        return [_plain(value) for value in transform]
    plain = isinstance(transform, (str, int, float, bool, type(None)))
    return transform if plain else getattr(transform, '__name__', str(transform))


def _read_size(cfg: Config) -> InputSize | None:
    """What test images are brought to; where they stay as they are, training's."""
    loaders = ('test_dataloader', 'val_dataloader', 'train_dataloader')
    found = (read_input_size(cfg, key) for key in loaders)
    return next((size for size in found if size is not None), None)


def _padded(pixels: int, divisor: int) -> int:
    return -(-pixels // divisor) * divisor


def _order(cfg: Config, channels: int, swap: bool) -> str:
    if channels == 1:
        return 'grey'
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    kinds = [type_name(d) for d in walk_wrappers(loader.get('dataset'))]
    order = 'RGB' if kinds and kinds[-1] in _RGB_ARRAYS else AS_LOADED
    for transform in _test_pipeline(cfg):
        name = type_name(transform)
        if 'LoadImage' in name:
            order = 'BGR'
        elif name == 'NumpyToPIL' and transform.get('to_rgb'):
            # It turns what it is given: without a loader, images of OpenCV.
            order = _TURNED.get(order, 'RGB')
        elif name in ('PILToNumpy', 'ToNumpy') and transform.get('to_bgr'):
            order = _TURNED.get(order, 'BGR')
    return _TURNED.get(order, AS_LOADED) if swap else order
