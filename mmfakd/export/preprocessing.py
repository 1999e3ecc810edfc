# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What has to be done to an image before an exported model sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from mmfakd.models.algorithms.normalisation import RAW, read_normalisation
from mmfakd.pairing.input_size import InputSize, read_input_size

from .pipeline import (
    channel_order,
    loaded_channels,
    padded,
    read_padding,
    refuse_values,
    test_pipeline,
)
from .student_model import Student


def describe_preprocessing(
    cfg: Config, size: tuple[int, int] | None = None, channels: int | None = None
) -> dict[str, Any]:
    """Read from a student's config how its images are made.

    Args:
        cfg (Config): The config of the student.
        size (tuple[int, int], optional): Height and width of the images. Defaults to
            None: those of its test pipeline, or, where that leaves them alone, of its
            training pipeline.
        channels (int, optional): What the model takes. Defaults to None: as many as
            ``mean`` and ``std`` have values, of one value what the pipeline loads.

    Returns:
        dict: ``layout``, ``dtype``, ``value_range`` before normalisation,
        ``channel_order`` (``'RGB'``, ``'BGR'``, ``'grey'``, or that of the data set),
        ``mean`` and ``std``, one a channel, ``image_size`` as height and width, or as
        short and long side where images keep their ratio (``keep_ratio``),
        ``pad_size`` and ``pad_value`` (one a channel, before normalisation) where they
        are padded to one size, ``input_size`` of what is then padded to multiples of
        ``size_divisor`` by ``divisor_value`` (after normalisation), and the config's
        own ``test_pipeline`` as it stands there.

    Raises:
        ValueError: If the config says no size, images are neither grey nor coloured,
            or a transform does what cannot be stated.
    """
    refuse_values(cfg)
    preprocessor = cfg.model.get('data_preprocessor') or {}
    normalisation = {**RAW, **read_normalisation(preprocessor, 'student')}
    mean, std = (normalisation[key].flatten().tolist() for key in ('mean', 'std'))
    if len(mean) > 1 or len(std) > 1:
        channels = max(len(mean), len(std))
    elif normalisation['mean'] is RAW['mean']:
        # YOLOX's first convolution takes the channels of four pixels.
        channels = 1 if channels == 1 else 3
    else:
        channels = channels or loaded_channels(cfg)
    mean, std = (x * channels if len(x) == 1 else x for x in (mean, std))
    if channels not in (1, 3):
        raise ValueError(
            f'its images have {channels} channels, and no picture shows whether the '
            'export computes the same: export a .pth file.'
        )
    # Where mmseg's says how images of tests are padded.
    of_tests = preprocessor.get('test_cfg') or {}
    divisor = preprocessor.get('pad_size_divisor') or of_tests.get('size_divisor') or 1
    found = _read_size(cfg)
    if size is None and found is None:
        raise ValueError(
            'no transform in its config says how large its images are: give '
            '--input-size HEIGHTxWIDTH.'
        )
    sides = size or (found.height, found.width)  # type: ignore[union-attr]
    keep_ratio = found is not None and not found.fixed
    swap = normalisation['swap']
    pad_size, pad_value = read_padding(cfg, sides, keep_ratio, channels, swap)
    if pad_size is None and of_tests.get('size'):
        # Larger images it leaves alone.
        pad_size = [max(pair) for pair in zip(of_tests['size'], sides)]
        fill = normalisation['pad_value']
        pad_value = [m + fill * s for m, s in zip(mean, std)]
    elif pad_size and size:
        pad_size = [*size]
    return dict(
        layout='NCHW',
        dtype='float32',
        value_range=[0, 255],
        channel_order=channel_order(cfg, channels, swap),
        mean=mean,
        std=std,
        image_size=[*sides],
        keep_ratio=keep_ratio,
        pad_size=pad_size,
        pad_value=pad_value,
        input_size=[padded(side, divisor) for side in pad_size or sides],
        size_divisor=divisor,
        divisor_value=normalisation['pad_value'],
        test_pipeline=list(test_pipeline(cfg)),
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
    batch: dict[str, Any] = dict(inputs=[torch.from_numpy(raw)])
    if student.task == 'segmentation':
        # What mmseg pads it tells the samples.
        batch['data_samples'] = [BaseDataElement()]
    found = student.model.data_preprocessor(batch, False)['inputs'].cpu().numpy()
    if found.shape != expected.shape or np.abs(found - expected).max() > 1e-3:
        raise ValueError(
            f'the {type(student.model.data_preprocessor).__name__} of the student does '
            'more than to subtract a mean and divide by a deviation, which cannot be '
            f'stated in the file: it made {found.shape} of an image that should have '
            f'become {expected.shape}, apart by up to '
            f'{np.abs(found.mean() - expected.mean()):.3g}. Export a .pth file.'
        )


def _read_size(cfg: Config) -> InputSize | None:
    """What test images are brought to; where they stay as they are, training's."""
    for key in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        # Padding is stated beside the size of what is padded.
        found = read_input_size(cfg, key, padded=False) or read_input_size(cfg, key)
        if found is not None:
            return found
    return None
